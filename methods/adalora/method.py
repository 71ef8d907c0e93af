"""AdaLoRA: an update in SVD form whose rank moves, during training, to the layers that need it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.api.method import Batch, Peft
from bench.config.sections import MethodConfig
from methods.adalora.budget import Schedule, keep, steps
from methods.adalora.config import AdaLoRAConfig, no_room
from methods.adalora.layer import SVDLinear
from methods.common import peft
from methods.common.lowrank import Base, FactoredLinear, LowRank, matrix


class AdaLoRA(LowRank):
    """Adds B·(E ⊙ A) to frozen layers and moves rank between them; equations are in `AdaLoRAConfig`."""

    Config: ClassVar[type[MethodConfig]] = AdaLoRAConfig

    config: AdaLoRAConfig

    def prepare(self, found: Any, ranks: dict[str, int | None], batch: Batch, generator: torch.Generator) -> None:
        """The budget that remains is the sum of the layers' ranks."""
        self._target = sum(rank or 0 for rank in ranks.values())

    def cost(self, m: int, n: int, rank: int) -> int:
        """Of the triplets that a layer starts with."""
        return (self.config.init_rank or math.ceil(1.5 * rank)) * (m + n + 1)

    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """The layer with B·(E ⊙ A) beside it, at its initial rank."""
        assert rank is not None
        r = self.config.init_rank or math.ceil(1.5 * rank)
        m, n = matrix(base).shape
        a = torch.randn(r, n, generator=generator) * 0.02
        b = torch.randn(m, r, generator=generator) * 0.02
        scale = self.config.alpha / (r + 1e-5)
        return SVDLinear(base, (a, torch.zeros(r, 1), b), scale=scale, dropout=self.config.dropout)

    def penalty(self) -> Tensor | None:
        """γ times the mean distance of AAᵀ and BᵀB from the identity."""
        if not self.config.gamma:
            return None
        grams = [gram for layer in self._svd() for gram in layer.grams()]
        distances = [torch.linalg.matrix_norm(g - torch.eye(len(g), device=g.device, dtype=g.dtype)) for g in grams]
        return self.config.gamma * torch.stack(distances).mean()

    def on_fit_start(self) -> None:
        """Make the schedule, now that the number of steps is known.

        Raises:
            UsageError: it leaves no step for pruning.
        """
        total = self.trainer.max_steps
        begins, after = steps(self.config.tinit, total), steps(self.config.tfinal, total)
        if begins + after >= total:
            raise no_room(f"tinit is {begins} and tfinal {after} of {total} steps")
        self.schedule = Schedule(
            initial=sum(len(layer.kept) for layer in self._svd()),
            target=self._target,
            begins=begins,
            ends=total - after,
            every=max(1, steps(self.config.delta_t, total)),
        )

    def optimizer_step(self, *args: Any, **named: Any) -> None:
        """Allocate after the step, which comes once per global batch; its gradients are there until the next one's."""
        super().optimizer_step(*args, **named)
        self.allocate(self.trainer.global_step + 1)  # Lightning counts the step when this returns

    def allocate(self, step: int) -> None:
        """Score the triplets after `step` optimiser steps and keep as many of the best as the budget allows."""
        layers = list(self._svd())
        if step < self.schedule.ends:
            for layer in layers:
                layer.observe(self.config.beta1, self.config.beta2)
        chooses = self.schedule.chooses(step)
        if chooses:
            drop = self.schedule.initial - self.schedule.budget(step)
            kept = keep([layer.scores() for layer in layers], drop)
            for layer, mask in zip(layers, kept, strict=True):
                layer.kept.copy_(mask)
        if chooses or step > self.schedule.ends:
            for layer in layers:
                layer.prune()

    def report(self) -> dict[str, Any]:
        """The schedule, and the budget along it."""
        return {"budget": asdict(self.schedule), "course": self.schedule.course()}

    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Peft:
        """Peft's AdaLoRA of the triplets that were kept."""
        return peft.adalora(tensors, config.alpha)

    def _svd(self) -> Iterator[SVDLinear]:
        return (layer for _, layer in self.layers() if isinstance(layer, SVDLinear))
