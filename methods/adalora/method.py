"""AdaLoRA: an update in SVD form whose rank moves, during training, to the layers that need it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.api.method import Batch, Peft
from bench.config.sections import in_range
from bench.core.errors import UsageError
from methods.adalora.budget import Schedule, keep, steps
from methods.adalora.layer import SVDLinear
from methods.common import peft
from methods.common.lowrank import Base, FactoredLinear, LowRank, LowRankConfig, matrix


class AdaLoRA(LowRank):
    """W + (α/(r₀+1e-5))·B·(E ⊙ A), pruned by importance (Zhang et al. 2023, arXiv 2303.10512).

    A (r₀, n) and B (m, r₀) start as N(0, .02²), E (r₀, 1) at zero. After every optimiser step each triplet
    (a_i, e_i, b_i) is scored by the running sensitivity |w·∇w| of its entries times their uncertainty; a budget
    falling from Σ r₀ to Σ r keeps the best over all layers and sets the others' E to zero. A and B are held near
    orthogonal by γ · mean of ‖AAᵀ − I‖_F and ‖BᵀB − I‖_F (not squared, as the authors' code has it). A convolution is
    the matrix (out, in·k·k), n = in·k·k.
    Trains: A, E, B and the head. Parameters: Σ over target layers r₀·(m + n + 1), plus head.
    """

    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    @dataclass(frozen=True, kw_only=True)
    class Config(LowRankConfig):
        """The authors' settings for GLUE's small tasks, with t_i and t_f as shares of the run's steps."""

        rank: int = 8
        """r, the rank that remains per layer on average."""
        init_rank: int | None = None
        """r₀, the rank every layer starts with; none: 1.5·r, rounded up."""
        alpha: float = 32.0
        """Numerator of the scale α/(r₀+1e-5), which pruning does not change."""
        tinit: float = 0.15
        """t_i, steps before pruning begins: a share of all steps below 1, else a number of steps."""
        tfinal: float = 0.5
        """t_f, steps at the end with the ranks settled: a share of all steps below 1, else a number of steps."""
        delta_t: float = 1.0
        """ΔT, steps between two choices: a share of all steps below 1, else a number of steps."""
        beta1: float = 0.85
        """β₁, decay of the running sensitivity."""
        beta2: float = 0.85
        """β₂, decay of the running uncertainty."""
        gamma: float = 0.1
        """γ, weight of the orthogonality penalty."""

        def __post_init__(self) -> None:
            """Check ranges."""
            super().__post_init__()
            in_range("method.rank", self.rank, 1)
            in_range("method.init_rank", self.rank if self.init_rank is None else self.init_rank, self.rank)
            for name in ("tinit", "tfinal", "delta_t", "gamma"):
                in_range(f"method.{name}", getattr(self, name), 0)
            for name in ("beta1", "beta2"):
                in_range(f"method.{name}", getattr(self, name), 0, 0.9999)
            if max(self.tinit, self.tfinal) < 1 <= self.tinit + self.tfinal:
                raise _no_room(f"tinit {self.tinit:g} and tfinal {self.tfinal:g} are shares of all steps")

    config: Config

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
            raise _no_room(f"tinit is {begins} and tfinal {after} of {total} steps")
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


def _no_room(known: str) -> UsageError:
    return UsageError("the budget has no step to fall in", known, "Lower method.tinit or method.tfinal.")
