"""Lightning callbacks of a run: the loss curve, which also stops a diverging run, predictions, and checkpoints."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from bench.core.errors import Diverged
from bench.core.files import replacing
from bench.records.schema import Evaluation, Scores

POINTS = 200
"""Most points of a recorded loss curve."""


class LossCurve(Callback):
    """Loss of the global batch at every optimiser step.

    Attributes:
        points: `(step, loss)`, at most `POINTS` of them, evenly spaced, the last step among them.
        train_s: wall seconds between the first step and the last.
    """

    def __init__(self, steps: int, parts: int, on_step: Callable[[int, float], None]) -> None:
        self.steps, self.parts, self.on_step = steps, parts, on_step
        self.every = max(1, math.ceil(steps / POINTS))
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
        """Evaluation on the way is no training."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._began += time.perf_counter() - self._paused

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "step": self._step, "train_s": time.perf_counter() - self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = [(step, loss) for step, loss in state_dict["points"]]
        self._step, self.train_s = state_dict["step"], state_dict["train_s"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up micro batches; at the end of a step, average over devices.

        Raises:
            Diverged: the loss is not finite; on every device at the same step.
        """
        loss: Tensor = pl_module.step_loss / self.parts  # type: ignore[assignment]
        self._sum = loss if self._sum is None else self._sum + loss
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        total, self._sum = self._sum, None
        if trainer.world_size > 1:
            dist.all_reduce(total)
            total = total / trainer.world_size
        value = float(total)
        if not math.isfinite(value):
            raise Diverged(
                f"the loss became {value} at step {self._step} of {self.steps}",
                f"last finite loss: {self.points[-1][1]:.4g} at step {self.points[-1][0]}" if self.points else "",
                "Lower --lr, or raise precision.",
            )
        if self._step % self.every == 0 or self._step in (1, self.steps):
            self.points.append((self._step, value))
        self.on_step(self._step, value)


class Predictions(Callback):
    """Outputs of every evaluation example, gathered over devices and put back in the examples' order."""

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        kept = tuple(t.detach().cpu() for t in (batch["index"], outputs.float(), batch["labels"]))
        self._parts.setdefault(dataloader_idx, []).append(kept)

    def gathered(self, split: int, world: int) -> tuple[Tensor, Tensor]:
        """Outputs (N, …) and labels (N,) of a split, on every device.

        Raises:
            Diverged: an output is not finite.
        """
        parts = self._parts.get(split, [])
        if world > 1:
            everyone: list[Any] = [None] * world
            dist.all_gather_object(everyone, parts)
            parts = [part for one in everyone for part in one]
        index, outputs, labels = (torch.cat(column) for column in zip(*parts, strict=True))
        if not bool(torch.isfinite(outputs).all()):
            raise Diverged("the trained network's outputs are not finite", "", "Lower --lr, or raise precision.")
        order = index.argsort()
        return outputs[order], labels[order]


def evaluation_steps(steps: int, count: int) -> frozenset[int]:
    """Return the steps after which dev is evaluated: `count` of them, evenly spaced, the last step among them."""
    return frozenset(-(-number * steps // count) for number in range(1, count + 1))


class Evaluations(Callback):
    """Scores of the evaluations during training, for methods that ask for some (`Method.evaluations`).

    The trainer must be told to evaluate after every batch (`val_check_interval=1`); this callback switches that off for
    all but the wanted steps.

    Attributes:
        rows: in the order of their steps.
    """

    def __init__(self, at: frozenset[int], parts: int, score: Callable[[int], Scores]) -> None:
        """Args: steps to evaluate after, micro batches per step, and number of devices → metrics of what just ended."""
        self.at, self.parts, self.score = at, parts, score
        self.rows: list[Evaluation] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = trainer.global_step in self.at and (batch_idx + 1) % self.parts == 0
        trainer.val_check_batch = 1 if due else float("inf")  # infinity: only after the last batch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.rows.append(Evaluation(step=trainer.global_step, metrics=self.score(trainer.world_size)))

    def state_dict(self) -> dict[str, Any]:
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

    def __init__(self, file: Path, *, parts: int, every_s: float | None) -> None:
        """Args: the file, micro batches per step, and seconds between two writes (None: never)."""
        self.file, self.parts, self.every_s = file, parts, every_s
        self.resumed: list[int] = []
        self._random: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Generators by device, and where the run was interrupted before."""
        return {"random": self._random, "resumed": self.resumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; the generators are set when training begins."""
        self._random, self.resumed = state_dict["random"], list(state_dict["resumed"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count batches from where they were: Lightning, which evaluates by this count, is one ahead after `_write`."""
        total = trainer.fit_loop.epoch_loop.batch_progress.total
        total.ready = total.completed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the first batch, set the generators of an interrupted run; before later ones, write if it is time."""
        if self._random:
            _set_random(self._random[trainer.global_rank])
            self._random = []
            self.resumed.append(trainer.global_step)
        elif batch_idx and batch_idx % self.parts == 0 and self._due(trainer):
            self._write(trainer, batch_idx)

    def _due(self, trainer: Trainer) -> bool:
        if self.every_s is None:
            return False
        due = time.monotonic() - self._written >= self.every_s
        return due if trainer.world_size == 1 else trainer.strategy.broadcast(due)  # all devices write, or none

    def _write(self, trainer: Trainer, batch_idx: int) -> None:
        trainer.datamodule.batches_taken = batch_idx  # type: ignore[attr-defined]
        self._random = [_random()]
        if trainer.world_size > 1:
            everyone: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(everyone, self._random[0])
            self._random = everyone
        if trainer.is_global_zero:
            with replacing(self.file) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.file)  # every device must call it; only the first writes
        self._random = []
        self._written = time.monotonic()


def _random() -> dict[str, Any]:
    """State of every global generator, as values that load without pickle."""
    numpy = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
    }


def _set_random(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    inner = states["numpy"]["state"]
    np.random.set_state({**states["numpy"], "state": {**inner, "key": np.array(inner["key"], dtype=np.uint32)}})
