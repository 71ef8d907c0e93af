"""Base of the pretraining methods: a loss of their own, and a head that learns labels apart from it, as a probe."""

from __future__ import annotations

import torch
from torch import nn

from bench.api.method import Batch
from bench.api.optimizers import ParamGroup, split_groups
from methods.full.method import Full


class Pretraining(Full):
    """Trains everything; the head is a linear probe with its own learning rate, whose gradients are clipped apart."""

    saves_backbone = "always"

    def adapt(self, batch: Batch) -> None:
        """Keep W(0)."""
        self.evaluations = self.config.evaluations
        super().adapt(batch)

    def param_groups(self) -> list[ParamGroup]:
        """Return the probe at `probe_lr_ratio` times the learning rate, and the rest."""
        probe = [p for p in self.head.parameters() if p.requires_grad]
        return split_groups(self, probe, self.config.probe_lr_ratio)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the probe separately: with a common norm the labels would scale the network's steps."""
        if gradient_clip_val:
            for group in self.param_groups():
                nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)
