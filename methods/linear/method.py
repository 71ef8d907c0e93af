"""Linear probing: the head alone trains on frozen features."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from bench.api.method import Batch, Method
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from methods.linear.config import LinearConfig

FLOOR = 0.01
"""Least deviation of a feature, relative to the root mean square over features: one that hardly varies in the first
batch may vary later."""


class Linear(Method):
    """Trains the head on frozen features (see `LinearConfig`)."""

    Config: ClassVar[type[MethodConfig]] = LinearConfig

    config: LinearConfig
    mean: Tensor
    deviation: Tensor

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone, and look at the features of the first batch where that is asked for.

        Raises:
            UsageError: a batch of one example has no deviation.
        """
        self.backbone.requires_grad_(False)
        if not self.config.standardise:
            return
        if len(batch["index"]) < 2:
            known = "they are those of the first global batch, which holds one example"
            raise UsageError("method.standardise needs deviations", known, "Raise --batch-size, or leave it out.")
        self.backbone.eval()  # no dropout; the whole method is put into training mode later
        with torch.no_grad():
            deviation, mean = torch.std_mean(self.backbone(**batch["inputs"]), 0)
        floor = FLOOR * deviation.square().mean().sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.clamp_min(floor) if floor > 0 else torch.ones_like(deviation))

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """As every method's, shifted and scaled where that is asked for."""
        pooled = super().features(inputs)
        return (pooled - self.mean) / self.deviation if self.config.standardise else pooled

    def export(self) -> dict[str, Tensor]:
        """The head, and what its features are shifted and scaled by."""
        seen = {"mean": self.mean, "deviation": self.deviation} if self.config.standardise else {}
        return {**super().export(), **seen}
