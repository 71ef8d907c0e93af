"""Lightning callbacks of a run: the loss curve, which also stops a diverging run, and the predictions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bench.errors import Diverged

POINTS = 200
"""Most points of a recorded loss curve."""


class LossCurve(Callback):
    """Loss of the global batch at every optimiser step.

    Attributes:
        points: `(step, loss)`, at most `POINTS` of them, evenly spaced, the last step among them.
        train_s: wall seconds between the first step and the last.
    """

    def __init__(self, steps: int, parts: int, tell: Callable[[int, float], None]) -> None:
        self.steps, self.parts, self.tell = steps, parts, tell
        self.every = max(1, math.ceil(steps / POINTS))
        self.points: list[tuple[int, float]] = []
        self.train_s = 0.0
        self._sum: Tensor | None = None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.train_s = time.perf_counter() - self._began

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
        self.tell(self._step, value)


class Predictions(Callback):
    """Outputs of every evaluation example, gathered over devices and put back in the examples' order."""

    def __init__(self) -> None:
        self._parts: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep index, output and label of the batch on the CPU."""
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
