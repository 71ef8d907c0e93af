"""Linear probing: the head alone trains on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.api.method import Batch, Method
from bench.core.errors import UsageError

FLOOR = 0.01
"""Least deviation of a feature, relative to the root mean square over features: one that hardly varies in the first
batch may vary later."""


class Linear(Method):
    """What the pretrained features are worth without any adaptation: the floor of every comparison.

    With `standardise` the head sees (h − μ)/σ, μ and σ of each feature over the first global batch: then SGD's progress
    says what the features hold, and not how large they are. MAE's linear probing has a BatchNorm without scale and
    shift there (He et al. 2021, arXiv 2111.06377, A.1), whose statistics would depend on how a batch is cut.
    Trains: the head. Parameters: head.
    """

    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What the head sees."""

        standardise: bool = False
        """Shift and scale each feature by its mean and deviation over the first global batch."""

    config: Config
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
