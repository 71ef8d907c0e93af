"""A look at a network while it trains: the same measurement at chosen steps, which changes nothing of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bench.api.method import Method

T = TypeVar("T")
CHUNK = 256
"""Examples per forward pass."""


def spaced(steps: int, count: int) -> list[int]:
    """0, 1, …, `steps`: at most `count` whole numbers, but for the 0 evenly spaced in their logarithm."""
    return sorted({0, *(round(float(step)) for step in np.geomspace(1, steps, count - 1))})


class Midway(Callback, Generic[T]):
    """`measure(method, data)` before the first step and after each of `steps`.

    It is called in evaluation mode, without gradients, and with random generators that are put back afterwards.

    Attributes:
        found: what was measured, by step.
    """

    def __init__(self, steps: Iterable[int], measure: Callable[[Method, Any], T]) -> None:
        self.steps, self.measure = frozenset(steps), measure
        self.found: dict[int, T] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The start."""
        self._look(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step; between the micro batches of one nothing is new."""
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step not in self.steps or step in self.found:
            return
        modes = [(module, module.training) for module in pl_module.modules()]
        pl_module.eval()
        with torch.random.fork_rng(), torch.no_grad():
            self.found[step] = self.measure(cast("Method", pl_module), cast("Any", trainer).datamodule)
        for module, training in modes:  # each as it was: frozen normalisations do not train with the rest
            module.training = training


def drawn(total: int, most: int) -> np.ndarray:
    """Ascending indices of at most `most` of `total` examples, the same for every seed."""
    return np.sort(np.random.default_rng(0).permutation(total)[:most])


def features(method: Method, data: Any, most: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) below the head and labels (N,) of at most `most` training examples, on the CPU, not augmented."""
    index = drawn(len(data.train.labels), most)
    found: list[Tensor] = []
    labels: list[Tensor] = []
    for i in range(0, len(index), CHUNK):
        batch = data.collate(data.train, index[i : i + CHUNK])
        inputs = {name: value.to(method.device) for name, value in batch["inputs"].items()}
        found.append(method.backbone(**inputs).float().cpu())
        labels.append(batch["labels"])
    return torch.cat(found), torch.cat(labels)
