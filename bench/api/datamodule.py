"""Examples as a LightningDataModule that is indexed by step: what a run trains on follows from seed and step alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, Self

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from bench.api.batching import BatchSplit, StepBatches
from bench.api.task import TaskSpec
from bench.records.data import Dataset
from bench.records.spec import RunSpec

Batch = dict[str, Any]


class Split(Protocol):
    """Examples of a split, ready to become batches."""

    @property
    def lengths(self) -> np.ndarray:
        """(N,): batches hold examples of like length."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """(N,) or (N, k)."""
        ...

    def take(self, index: np.ndarray) -> Self:
        """Those examples, in that order."""
        ...


class StepDataModule(LightningDataModule):
    """Feeds one run of one task. A subclass says how rows become a `Split` (`load`) and examples a batch (`collate`).

    Training is one long list of micro batches, indexed by step. With `spec.holdout` that many training examples are cut
    off by seed and evaluated on instead of dev; `spec.train_samples` then draws, by seed and without replacement, from
    the rest.

    Attributes:
        splits: names of the evaluation splits, in the order of `val_dataloader`; the first is primary.
        steps: optimiser steps of the whole run.
        done: micro batches that training has taken, told by whoever writes a checkpoint.
    """

    done = 0

    def __init__(self, task: TaskSpec, dataset: Dataset, spec: RunSpec) -> None:
        super().__init__()
        self.task, self.spec = task, spec
        self.runtime = spec.options.runtime
        chosen, held = _split(len(dataset.train), spec)
        train = self.load(dataset.train, "train")
        self.train = train.take(chosen)
        self.evaluation: dict[str, Any] = (
            {"holdout": train.take(held)}
            if spec.holdout
            else {name: self.load(rows, name) for name, rows in dataset.evaluation.items()}
        )
        self.splits = tuple(self.evaluation)
        self.batches = StepBatches(lengths=self.train.lengths, batch_size=spec.batch_size, seed=spec.seed)
        self.steps = spec.max_steps or math.ceil((spec.epochs or 1) * self.batches.per_epoch)

    @abstractmethod
    def load(self, rows: Any, name: str) -> Split:
        """Rows of the dataset as a split.

        Args:
            rows: `Dataset.train` or one of `Dataset.evaluation`.
            name: of the split.
        """

    @abstractmethod
    def collate(self, split: Any, index: np.ndarray, weight: float = 1.0, step: int = -1) -> Batch:
        """Examples `index` of a split as a batch (`bench.api.method.Batch`).

        Args:
            split: what `load` gave, or a part of it.
            index: (B,).
            weight: of the mean loss.
            step: of the optimiser, for what is drawn anew at every step; −1 in evaluation.
        """

    @property
    def label_mean(self) -> float:
        """Mean training label, where a regression head starts."""
        return float(np.mean(self.train.labels))

    @property
    def samples(self) -> int:
        """Examples seen over the whole run, repeats counted."""
        whole, rest = divmod(self.steps, self.batches.per_epoch)
        return whole * len(self.train.labels) + sum(len(self.batches[s]) for s in range(rest))

    def cut(self) -> BatchSplit:
        """This process's share of a global batch."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return BatchSplit(batch_size=self.spec.batch_size, rank=rank, world=world, micro=self.runtime.micro_batch)

    def first_batch(self) -> Batch:
        """The whole global batch of step 0, the same on every device."""
        return self.collate(self.train, self.batches[0], step=0)

    def once(self, size: int = 32) -> Iterator[Batch]:
        """Every training example once, long ones first, in batches that depend on nothing but the data."""
        order = np.argsort(-self.train.lengths, kind="stable")
        for i in range(0, len(order), size):
            yield self.collate(self.train, order[i : i + size])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro batches of this device, in order, for the whole run, or for what is left of an interrupted one."""
        return _Resumable(self, _Steps(self, self.cut()))

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader per evaluation split: every example once over all devices, long ones first."""
        cut = self.cut()
        size = self.runtime.eval_batch
        loaders: list[DataLoader[Batch]] = []
        for split in self.evaluation.values():
            mine = np.argsort(-split.lengths, kind="stable")[cut.rank :: cut.world]
            chunks = [mine[i : i + size] for i in range(0, len(mine), size)]
            loaders.append(_loader(_Chunks(self, split, chunks), self.runtime.workers))
        return loaders


def _split(n: int, spec: RunSpec) -> tuple[np.ndarray, np.ndarray]:
    """Indices trained on and held out; the order of a permutation by seed decides both."""
    order = np.random.default_rng([spec.seed, n]).permutation(n)
    held, rest = order[: spec.holdout], order[spec.holdout :]
    chosen = rest if spec.train_samples is None else rest[: spec.train_samples]
    return np.sort(chosen), np.sort(held)


class _Steps(torch.utils.data.Dataset[Batch]):
    """Item i is micro batch i % parts of step i // parts."""

    def __init__(self, data: StepDataModule, cut: BatchSplit) -> None:
        self.data, self.cut = data, cut

    def __len__(self) -> int:
        return self.data.steps * self.cut.parts

    def __getitem__(self, item: int) -> Batch:
        step, part = divmod(item, self.cut.parts)
        index, weight = self.cut.part(self.data.batches[step], part)
        return self.data.collate(self.data.train, index, weight, step)


class _From(Sampler[int]):
    """`start`, …, `total` − 1; its length is the whole run's, by which Lightning counts."""

    def __init__(self, total: int) -> None:
        self.total, self.start = total, 0

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))

    def __len__(self) -> int:
        return self.total


class _Resumable(DataLoader[Batch]):
    """The training loader, whose position Lightning keeps in a checkpoint: micro batches taken, as the run says."""

    def __init__(self, data: StepDataModule, steps: _Steps) -> None:
        self.data, self.position = data, _From(len(steps))
        super().__init__(steps, batch_size=None, sampler=self.position, num_workers=data.runtime.workers)

    def state_dict(self) -> dict[str, int]:
        """The loader itself may have read ahead."""
        return {"done": self.data.done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin there."""
        self.position.start = state_dict["done"]


class _Chunks(torch.utils.data.Dataset[Batch]):
    """Item i is evaluation batch i."""

    def __init__(self, data: StepDataModule, split: Any, chunks: list[np.ndarray]) -> None:
        self.data, self.split, self.chunks = data, split, chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, item: int) -> Batch:
        return self.data.collate(self.split, self.chunks[item])


def _loader(items: torch.utils.data.Dataset[Batch], workers: int) -> DataLoader[Batch]:
    # a generator of its own: an iterator draws a seed, and evaluating must not change what training draws
    return DataLoader(items, batch_size=None, shuffle=False, num_workers=workers, generator=torch.Generator())
