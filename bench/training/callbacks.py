"""Lightning callbacks of a run: the loss curve, which also stops a diverging run, evaluations, and checkpoints."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from bench.api.batching import Batch
from bench.api.datamodule import Split, StepDataModule
from bench.api.method import Method
from bench.core.errors import Diverged
from bench.core.files import replacing
from bench.records.fields import Scores
from bench.records.predictions import Predictions
from bench.records.results import Evaluation

POINTS = 200
"""Most points of a recorded loss curve."""
WRITE_SHARE = 0.02
"""Share of the time that writing checkpoints may take: the longer a write takes, the rarer it is."""
LOWER_LR = "Lower --lr, or raise precision."

OnStep = Callable[[int, float], None]
"""Called with step and loss after every optimiser step."""
T = TypeVar("T")


class LossCurve(Callback):
    """Loss of the global batch at every optimiser step, with which `on_step` is called.

    Attributes:
        points: `(step, loss)`, at most `POINTS` of them, evenly spaced, the last step among them.
        train_s: wall seconds between the first step and the last, without evaluations.
    """

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step
        self.points: list[tuple[int, float]] = []
        self.train_s = 0.0
        self._sum: Tensor | None = None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, or let it go on from where an interrupted run stopped it."""
        self._began = time.perf_counter() - self.train_s

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_s = time.perf_counter() - self._began

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: evaluation on the way is no training."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._began += time.perf_counter() - self._paused

    def state_dict(self) -> dict[str, object]:
        """Return points, steps and seconds so far."""
        return {"points": self.points, "step": self._step, "train_s": time.perf_counter() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = [(step, loss) for step, loss in state_dict["points"]]
        self._step, self.train_s = state_dict["step"], state_dict["train_s"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Add up micro batches; at the end of a step, average over devices.

        Raises:
            Diverged: the loss is not finite; on every device at the same step.
        """
        loss = cast(Method, pl_module).step_loss / trainer.accumulate_grad_batches
        total = loss if self._sum is None else self._sum + loss
        step, steps = trainer.global_step, trainer.max_steps
        if step == self._step:
            self._sum = total
            return
        self._step, self._sum = step, None
        if trainer.world_size > 1:
            dist.all_reduce(total)
            total = total / trainer.world_size
        value = float(total)
        if not math.isfinite(value):
            known = f"last finite loss: {self.points[-1][1]:.4g} at step {self.points[-1][0]}" if self.points else ""
            raise Diverged(f"the loss became {value} at step {step} of {steps}", known, LOWER_LR)
        if step % math.ceil(steps / POINTS) == 0 or step in (1, steps):
            self.points.append((step, value))
        self.on_step(step, value)


def evaluation_steps(steps: int, count: int) -> frozenset[int]:
    """Return the steps after which dev is evaluated: `count` of them, evenly spaced, the last step among them."""
    return frozenset(-(-number * steps // count) for number in range(1, count + 1))


def course_steps(course: int | Literal["epoch"], steps: int, *, per_epoch: int) -> frozenset[int]:
    """Return the steps after which dev is evaluated: every `course`-th one, or the last of every epoch, and the last.

    `per_epoch` is the number of steps of a pass over train; `steps` that of the run, which may end within a pass.
    """
    every = per_epoch if course == "epoch" else course
    return frozenset({*range(every, steps, every), steps})


class Evaluations(Callback):
    """Scores of the evaluation after training, and of those on the way that the run or its method asks for.

    For those the trainer must be told to evaluate after every batch (`val_check_interval=1`); this callback switches
    that off for all but the wanted steps.

    Attributes:
        scores: every metric of every split at the last evaluation.
        sizes: examples of every split.
        majority: share of the most frequent label of every split with one class per example.
        constant: splits with classes for all examples of which the outputs name the same.
        predictions: labels and outputs of every split at the last evaluation.
        rows: the evaluations on the way, in the order of their steps.
    """

    def __init__(self, splits: Sequence[str], at: frozenset[int]) -> None:
        """Args: names of the splits, and the steps after which to evaluate."""
        self.splits, self.at = splits, at
        self.scores: Scores = {}
        self.sizes: dict[str, int] = {}
        self.majority: dict[str, float] = {}
        self.constant: list[str] = []
        self.predictions: dict[str, Predictions] = {}
        self.rows: list[Evaluation] = []
        self._batches: list[list[tuple[Tensor, Tensor, Tensor]]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Let Lightning evaluate after this batch if its step is one of those."""
        due = trainer.global_step in self.at and (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        trainer.val_check_batch = 1 if due else float("inf")  # infinity: only after the last batch

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the evaluation before this one."""
        self.scores, self.majority, self.constant, self.predictions = {}, {}, [], {}
        self._batches = [[] for _ in self.splits]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep index, output and label of the batch on the CPU."""
        output = cast(Tensor, outputs).detach().float().cpu()
        self._batches[dataloader_idx].append((batch["index"].cpu(), output, batch["labels"].cpu()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score every split, on every device, with the outputs of all devices in the examples' order.

        Raises:
            Diverged: an output is not finite.
        """
        method = cast(Method, pl_module)
        for split, batches in zip(self.splits, self._batches, strict=True):
            everywhere = [batch for device in _from_all_devices(batches, trainer) for batch in device]
            index, outputs, labels = (torch.cat(column) for column in zip(*everywhere, strict=True))
            if not bool(torch.isfinite(outputs).all()):
                raise Diverged("the trained network's outputs are not finite", "", LOWER_LR)
            order = index.argsort()
            index, outputs, labels = index[order], outputs[order], labels[order]
            self.scores[split], self.sizes[split] = method.evaluate(outputs, labels), len(labels)
            self.predictions[split] = Predictions(index.numpy(), labels.numpy(), outputs.numpy())
            if outputs.shape[1:] == (method.task.num_classes,):
                named = outputs > 0 if method.task.multilabel else outputs.argmax(-1)
                self.constant += [split] * (len(named.unique(dim=0)) == 1)
                if not method.task.multilabel:
                    self.majority[split] = int(labels.unique(return_counts=True)[1].max()) / len(labels)
        if trainer.state.fn == TrainerFn.FITTING:
            self.rows.append(Evaluation(step=trainer.global_step, metrics=self.scores))

    def state_dict(self) -> dict[str, object]:
        """The evaluations on the way so far."""
        return {"rows": [row.to_json() for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = msgspec.convert(state_dict["rows"], list[Evaluation])


class Checkpoint(Callback):
    """Writes, between two optimiser steps, everything that decides the next one; a later process goes on from there.

    Lightning keeps weights, optimiser, schedule and progress; this adds the random generators of every device, and the
    data's position (`datamodule.batches_taken`).

    Attributes:
        resumed: steps after which the run was taken up again.
    """

    def __init__(self, file: Path, data: StepDataModule[object, Split], every_s: float | None) -> None:
        """Args: the file, the run's data, and least seconds between two writes (0: after every step; None: never)."""
        self.file, self.data, self.every_s = file, data, every_s
        self.resumed: list[int] = []
        self._random: list[dict[str, object]] = []
        self._due = time.monotonic() + (every_s or 0)

    def state_dict(self) -> dict[str, object]:
        """Generators by device, and where the run was interrupted before."""
        return {"random": self._random, "resumed": self.resumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; the generators are set when training begins."""
        self._random, self.resumed = state_dict["random"], state_dict["resumed"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count batches from where they were: Lightning, which evaluates by this count, is one ahead after `_write`."""
        total = trainer.fit_loop.epoch_loop.batch_progress.total
        total.ready = total.completed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Before the first batch, set the generators of an interrupted run; before later ones, write if it is time."""
        if self._random:
            _set_random(self._random[trainer.global_rank])
            self._random = []
            self.resumed.append(trainer.global_step)
        elif self.every_s is not None and batch_idx and batch_idx % trainer.accumulate_grad_batches == 0:
            due = time.monotonic() >= self._due
            if trainer.strategy.broadcast(due):  # all devices write, or none
                self._write(trainer, batch_idx)

    def _write(self, trainer: Trainer, batch_idx: int) -> None:
        began = time.monotonic()
        self.data.batches_taken = batch_idx
        self._random = _from_all_devices(_random(), trainer)
        with replacing(self.file, sync=True) if trainer.is_global_zero else nullcontext(self.file) as file:
            trainer.save_checkpoint(file)  # every device must call it; only the first writes
        self._random = []
        now = time.monotonic()
        self._due = now + max(self.every_s, (now - began) / WRITE_SHARE) if self.every_s else now


def _from_all_devices(value: T, trainer: Trainer) -> list[T]:
    """Return the values of all devices in the order of their ranks."""
    values = [value] * trainer.world_size
    if trainer.world_size > 1:
        dist.all_gather_object(values, value)
    return values


def _random() -> dict[str, object]:
    """State of every global generator, as values that load without pickle."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": numpy,
    }


def _set_random(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
