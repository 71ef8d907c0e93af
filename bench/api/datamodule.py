"""The LightningDataModule that third parties build on: what a run trains on follows from seed and step alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar, cast

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils import data as torch_data
from torch.utils.data import DataLoader

from bench.api.batching import Batch, BatchSplit, StepBatches, chunks
from bench.api.task import TaskSpec
from bench.records.data import Dataset
from bench.records.spec import RunSpec

__all__ = ["Batch", "Split", "StepDataModule"]


class Split(Protocol):
    """Examples of a split, ready to become batches."""

    @property
    def lengths(self) -> np.ndarray:
        """(N,): batches hold examples of similar length."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """(N,) or (N, k)."""
        ...

    def take(self, index: np.ndarray) -> Self:
        """Return those examples, in that order."""
        ...


Item = tuple[np.ndarray, float, int]
"""Index, weight and step, as `collate` takes them."""
RowsT = TypeVar("RowsT")
SplitT = TypeVar("SplitT", bound=Split)


class StepDataModule(LightningDataModule, Generic[RowsT, SplitT]):
    """Feeds one run of one task; training is one long list of micro batches, indexed by step.

    A subclass implements two methods: `load` makes a `Split` of the rows that `Task.open` returned, and `collate` makes
    a batch of some examples of a split. All else follows: order, devices, micro batches, resuming, evaluation.

    `tasks/io/arrays.py` is a short one.

    `spec.train_samples` examples are drawn from train by seed, without replacement. With `spec.holdout`, that many of
    them are not trained on, and are evaluated on instead of dev.

    Attributes:
        train: the examples trained on.
        evaluation: evaluation splits by name, in the order of `val_dataloader`; the first is primary.
        splits: their names.
        class_weights: (classes,) of the loss where the task is `balanced`: n / (k·n_c) for n training examples, n_c of
            them of class c and k classes with any, as scikit-learn's `compute_class_weight("balanced")`; 0 of the
            classes with none. Else None.
        steps: optimiser steps of the whole run.
        batches_taken: micro batches that training has taken; set before a checkpoint is written.
    """

    batches_taken = 0

    def __init__(self, task: TaskSpec, dataset: Dataset, spec: RunSpec) -> None:
        super().__init__()
        self.task, self.spec = task, spec
        self.runtime = spec.options.runtime
        train, n = self.load(cast("RowsT", dataset.train), "train"), len(dataset.train)
        order = np.random.default_rng([spec.seed, n]).permutation(n)
        drawn = order[: spec.train_samples]
        held_out, rest = drawn[: spec.holdout], drawn[spec.holdout :]
        self.train = train.take(np.sort(rest))
        self.evaluation: dict[str, SplitT] = (
            {"holdout": train.take(np.sort(held_out))}
            if spec.holdout
            else {name: self.load(cast("RowsT", rows), name) for name, rows in dataset.evaluation.items()}
        )
        self.splits = tuple(self.evaluation)
        self.class_weights = balanced_weights(self.train.labels, task.num_classes) if task.balanced else None
        self.batches = StepBatches(lengths=self.train.lengths, batch_size=spec.batch_size, seed=spec.seed)
        self.steps = spec.steps(len(self.train.lengths))

    @abstractmethod
    def load(self, rows: RowsT, name: str) -> SplitT:
        """Make a split of `Dataset.train` or of the evaluation split called `name`."""

    @abstractmethod
    def collate(self, split: SplitT, index: np.ndarray, weight: float = 1.0, step: int = -1) -> Batch:
        """Make a batch of the examples `index` (B,) of what `load` returned, or of a part of it.

        `weight` and `step` are those of `Batch`; what is drawn anew at every step follows from `step`.
        """

    def warnings(self) -> list[str]:
        """Return lines that the reader of a score must see."""
        missing = 0 if self.class_weights is None else int(np.count_nonzero(self.class_weights == 0))
        return [f"{missing} of {self.task.num_classes} classes have no example to train on"] if missing else []

    def report(self) -> dict[str, object]:
        """Return JSON values by name for the record."""
        return {} if self.class_weights is None else {"class_weights": self.class_weights.tolist()}

    @property
    def label_mean(self) -> float:
        """Mean training label, where a regression head starts."""
        return float(np.mean(self.train.labels))

    @property
    def samples(self) -> int:
        """Examples seen over the whole run, repeats counted."""
        epochs, rest = divmod(self.steps, self.batches.per_epoch)
        return epochs * len(self.train.labels) + sum(len(self.batches[s]) for s in range(rest))

    def first_batch(self) -> Batch:
        """Return the global batch of step 0, the same on every device."""
        return self.first_batches(1)[0]

    def first_batches(self, count: int) -> list[Batch]:
        """Return the global batches of the first steps, at most those of the run."""
        steps = range(min(count, self.steps))
        return [self.collate(self.train, self.batches[step], step=step) for step in steps]

    def one_pass(self, size: int = 32) -> Iterator[Batch]:
        """Yield every training example once, long ones first, in batches that depend on nothing but the data."""
        order = np.argsort(-self.train.lengths, kind="stable")
        for index in chunks(order, size):
            yield self.collate(self.train, index)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this device's micro batches in order, of the run or of what is left of an interrupted one."""
        return _TrainLoader(self, self._batch_split())

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Return one loader per evaluation split."""
        return [self.evaluation_loader(name) for name in self.splits]

    def evaluation_loader(self, name: str, most: int = 0) -> DataLoader[Batch]:
        """Return a loader of a split: each example once over all devices, or `most`, spread evenly; long ones first."""
        split, devices = self.evaluation[name], self._batch_split()
        order = np.argsort(-split.lengths, kind="stable")
        if 0 < most < len(order):
            order = order[np.isin(order, np.arange(most) * len(order) // most)]
        batches = [(index, 1.0, -1) for index in chunks(order[devices.rank :: devices.world], self.runtime.eval_batch)]
        # a generator of its own: an iterator draws a seed, and evaluating must not change what training draws
        generator, workers = torch.Generator(), self.runtime.workers
        return DataLoader(
            _Examples(self, split), batch_size=None, sampler=batches, num_workers=workers, generator=generator
        )

    def _batch_split(self) -> BatchSplit:
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return BatchSplit(batch_size=self.spec.batch_size, rank=rank, world=world, micro=self.runtime.micro_batch)


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return (classes,) n / (k·n_c) of labels (n,), k being the classes that they have; 0 of the others."""
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    return np.divide(len(labels), np.count_nonzero(counts) * counts, where=counts > 0, out=np.zeros(classes))


class _Examples(torch_data.Dataset[Batch], Generic[RowsT, SplitT]):
    """Batches of a split by what the samplers yield."""

    def __init__(self, data: StepDataModule[RowsT, SplitT], split: SplitT) -> None:
        self.data, self.split = data, split

    def __getitem__(self, item: Item) -> Batch:
        return self.data.collate(self.split, *item)


class _MicroBatches(torch_data.Sampler[Item]):
    """This device's micro batches from number `start` on; the length is the whole run's, by which Lightning counts."""

    def __init__(
        self, batches: StepBatches, steps: int, devices: BatchSplit, example_weights: np.ndarray | None
    ) -> None:
        self.batches, self.steps, self.devices, self.example_weights = batches, steps, devices, example_weights
        self.start = 0

    def __len__(self) -> int:
        return self.steps * self.devices.parts

    def __iter__(self) -> Iterator[Item]:
        for number in range(self.start, len(self)):
            step, part = divmod(number, self.devices.parts)
            index, weight = self.devices.part(self.batches[step], part, self.example_weights)
            yield index, weight, step


class _TrainLoader(DataLoader[Batch], Generic[RowsT, SplitT]):
    """The training loader; Lightning keeps its state in a checkpoint."""

    def __init__(self, data: StepDataModule[RowsT, SplitT], devices: BatchSplit) -> None:
        weights = None if data.class_weights is None else data.class_weights[data.train.labels.astype(np.int64)]
        self.data, self.position = data, _MicroBatches(data.batches, data.steps, devices, weights)
        examples = _Examples(data, data.train)
        super().__init__(examples, batch_size=None, sampler=self.position, num_workers=data.runtime.workers)

    def state_dict(self) -> dict[str, int]:
        """Return the batches that training has taken: the loader itself may have read ahead."""
        return {"batches_taken": self.data.batches_taken}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start at the first batch that was not taken."""
        self.position.start = state_dict["batches_taken"]
