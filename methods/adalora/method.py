"""AdaLoRA: adds an update in SVD form and moves its rank, during training, to the layers that need it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.api.method import Batch
from bench.api.peft import PeftAdapter
from bench.config.sections import MethodConfig
from methods.adalora.config import AdaLoRAConfig, schedule_error
from methods.adalora.layer import SVDLinear, select_triplets
from methods.common import peft
from methods.common.factored import Base, FactoredLinear, matrix
from methods.common.lowrank import LowRank


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSchedule:
    """The cubic budget b(t) of arXiv 2303.10512, equation 12, over steps t = 1 … T.

    Attributes:
        initial: b₀, triplets of all layers at the start.
        target: b_T, triplets that remain.
        begins: t_i, last step of the full budget.
        ends: T − t_f, where the budget is b_T and the selection of triplets becomes final.
        every: ΔT, steps between two selections before that.
    """

    initial: int
    target: int
    begins: int
    ends: int
    every: int = 1

    def budget(self, step: int) -> int:
        """Return b(t), rounded down: b₀ up to `begins`, b_T from `ends`.

        Between them b(t) = b_T + (b₀ − b_T)·(1 − (t − t_i)/(T − t_i − t_f))³.
        """
        if step <= self.begins:
            return self.initial
        if step >= self.ends:
            return self.target
        left = 1 - (step - self.begins) / (self.ends - self.begins)
        return int((self.initial - self.target) * left**3 + self.target)

    def selects(self, step: int) -> bool:
        return step == self.ends or (self.begins < step < self.ends and step % self.every == 0)

    def course(self, points: int = 20) -> list[dict[str, int]]:
        """Return steps and budgets of about `points` selections, the last one included."""
        chosen = [step for step in range(self.begins + 1, self.ends + 1) if self.selects(step)]
        spread = chosen[:-1][:: max(1, len(chosen) // points)]
        return [{"step": step, "budget": self.budget(step)} for step in (*spread, self.ends)]


def to_steps(share: float, total: int) -> int:
    """Return a number of steps from a share of all steps, below 1, or from a number of steps."""
    return int(share * total) if share < 1 else int(share)


class AdaLoRA(LowRank):
    """Adds B·(E ⊙ A) to frozen layers and moves rank between them (see `AdaLoRAConfig`)."""

    Config: ClassVar[type[MethodConfig]] = AdaLoRAConfig

    config: AdaLoRAConfig

    def prepare(
        self,
        layers: Sequence[tuple[str, Base]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        """Set the final budget to the sum of the layers' ranks."""
        self._target = sum(rank or 0 for rank in ranks.values())

    def cost(self, m: int, n: int, rank: int) -> int:
        """Return the parameters of the triplets that a layer starts with."""
        return self._initial_rank(rank) * (m + n + 1)

    def _initial_rank(self, rank: int) -> int:
        return self.config.init_rank or math.ceil(1.5 * rank)

    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        assert rank is not None
        r = self._initial_rank(rank)
        m, n = matrix(base).shape
        a = torch.randn(r, n, generator=generator) * 0.02
        b = torch.randn(m, r, generator=generator) * 0.02
        scale = self.config.alpha / (r + 1e-5)
        return SVDLinear(base, (a, torch.zeros(r, 1), b), scale=scale, dropout=self.config.dropout)

    def penalty(self) -> Tensor | None:
        """Return γ times the mean distance of AAᵀ and BᵀB from the identity."""
        if not self.config.gamma:
            return None
        grams = [gram for layer in self._svd() for gram in layer.grams()]
        distances = [torch.linalg.matrix_norm(g - torch.eye(len(g), device=g.device, dtype=g.dtype)) for g in grams]
        return self.config.gamma * torch.stack(distances).mean()

    def on_fit_start(self) -> None:
        """Raises UsageError if no step is left for pruning."""
        total = self.trainer.max_steps
        begins, after = to_steps(self.config.tinit, total), to_steps(self.config.tfinal, total)
        if begins + after >= total:
            raise schedule_error(f"tinit is {begins} and tfinal {after} of {total} steps")
        self.schedule = BudgetSchedule(
            initial=sum(len(layer.kept) for layer in self._svd()),
            target=self._target,
            begins=begins,
            ends=total - after,
            every=max(1, to_steps(self.config.delta_t, total)),
        )

    def optimizer_step(self, *args: Any, **named: Any) -> None:
        """Allocate after the step, once per global batch; its gradients exist until the next backward pass."""
        super().optimizer_step(*args, **named)
        self.allocate(self.trainer.global_step + 1)  # Lightning counts the step when this returns

    def allocate(self, step: int) -> None:
        """Score the triplets after `step` optimiser steps and keep the best within the budget."""
        layers = list(self._svd())
        if step < self.schedule.ends:
            for layer in layers:
                layer.observe(self.config.beta1, self.config.beta2)
        selects = self.schedule.selects(step)
        if selects:
            drop = self.schedule.initial - self.schedule.budget(step)
            kept = select_triplets([layer.scores() for layer in layers], drop)
            for layer, mask in zip(layers, kept, strict=True):
                layer.kept.copy_(mask)
        if selects or step > self.schedule.ends:
            for layer in layers:
                layer.prune()

    def report(self) -> dict[str, object]:
        return {"budget": asdict(self.schedule), "course": self.schedule.course()}

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return peft's AdaLoRA of the triplets that were kept."""
        assert isinstance(config, AdaLoRAConfig)
        return peft.adalora(tensors, config.alpha)

    def _svd(self) -> Iterator[SVDLinear]:
        return (layer for _, layer in self.layers() if isinstance(layer, SVDLinear))
