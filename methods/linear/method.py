"""Linear probing: trains the head on frozen features."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.api.method import Batch, Method
from bench.core.errors import UsageError
from methods.linear.config import LinearConfig

FLOOR = 0.01
"""Least deviation of a feature relative to the root mean square over features, for features that hardly vary in the
first batch but may vary later."""


class Linear(Method):
    """Trains the head on frozen features (see `LinearConfig`)."""

    Config = LinearConfig
    config: LinearConfig
    frozen_exports = (r"^(mean|deviation)$",)
    mean: Tensor
    deviation: Tensor

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone; with method.standardise, measure the features of the first batch.

        Raises:
            UsageError: a batch of one example has no deviation.
        """
        self.backbone.requires_grad_(False)
        self.starts_at_backbone = not self.config.standardise
        if not self.config.standardise:
            return
        if len(batch["index"]) < 2:
            raise UsageError(
                "method.standardise needs at least two examples",
                "it measures deviations over the first global batch, which holds one",
                "Raise --batch-size, or leave method.standardise out.",
            )
        self.backbone.eval()  # no dropout; the whole method is put into training mode later
        with torch.no_grad():
            deviation, mean = torch.std_mean(self.backbone(**batch["inputs"]), 0)
        floor = FLOOR * deviation.square().mean().sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.clamp_min(floor) if floor > 0 else torch.ones_like(deviation))

    def expected_parameters(self) -> int | None:
        return 0

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the pooled features (B, D), standardised with method.standardise."""
        pooled = super().features(inputs)
        return (pooled - self.mean) / self.deviation if self.config.standardise else pooled

    def linear_head(self) -> tuple[Tensor, Tensor]:
        """Return a head that standardises too."""
        weight, bias = super().linear_head()
        if not self.config.standardise:
            return weight, bias
        scaled = weight.double() / self.deviation
        return scaled.to(weight), (bias - scaled @ self.mean.double()).to(bias)

    def export(self) -> dict[str, Tensor]:
        measured = {"mean": self.mean, "deviation": self.deviation} if self.config.standardise else {}
        return {**super().export(), **measured}
