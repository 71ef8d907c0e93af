"""AdaLoRA: adds an update in SVD form and moves its rank, during training, to the layers that need it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.api.lowrank.base import LowRank
from bench.api.lowrank.factored import Base, FactoredLinear
from bench.api.lowrank.peft import adalora_adapter
from bench.api.peft import PeftAdapter
from bench.config.sections import MethodConfig
from bench.spectra import Delta, matricize
from methods.adalora.config import AdaLoRAConfig, schedule_error


class AdaLoRA(LowRank):
    """Adds B·(E ⊙ A) to frozen layers and moves rank between them (see `AdaLoRAConfig`)."""

    Config = AdaLoRAConfig
    config: AdaLoRAConfig

    def layer_parameters(self, m: int, n: int, rank: int) -> int:
        """Return the parameters of the triplets that a layer starts with."""
        return self._initial_rank(rank) * (m + n + 1)

    def rank_of(self, first: Tensor) -> int:
        """Return a rank whose initial one is the length of A."""
        return int(len(first) / 1.5)

    def _initial_rank(self, rank: int) -> int:
        return self.config.init_rank or math.ceil(1.5 * rank)

    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        """Build the layer with B·(E ⊙ A) beside it, at its initial rank."""
        r = self._initial_rank(rank)
        m, n = matricize(base.weight).shape
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
        """Build the schedule from the number of steps.

        Raises:
            UsageError: no step is left for pruning.
        """
        total = self.trainer.max_steps
        shares = (self.config.tinit, self.config.tfinal, self.config.delta_t)
        begins, after, every = (int(share * total) if share < 1 else int(share) for share in shares)
        if begins + after >= total:
            raise schedule_error(f"tinit is {begins} and tfinal {after} of {total} steps")
        self.schedule = BudgetSchedule(
            initial=sum(len(layer.kept) for layer in self._svd()),
            target=sum(self.ranks.values()),
            begins=begins,
            ends=total - after,
            every=max(1, every),
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
        """Report the schedule and the budget along it."""
        return {"budget": asdict(self.schedule), "course": self.schedule.course()}

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return peft's AdaLoRA of the triplets that were kept."""
        assert isinstance(config, AdaLoRAConfig)
        return adalora_adapter(tensors, config.alpha)

    def _svd(self) -> Iterator[SVDLinear]:
        return (layer for _, layer in self.layers() if isinstance(layer, SVDLinear))


class Importance(nn.Module):
    """Running sensitivity Ī (`mean`) and uncertainty U (`spread`) of a parameter's entries.

    arXiv 2303.10512, equations 8 to 11. Both are buffers of the parameter's shape, so that a checkpoint holds them.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, parameter: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros_like(parameter))
        self.register_buffer("spread", torch.zeros_like(parameter))

    def update(self, parameter: nn.Parameter, beta1: float, beta2: float) -> None:
        """Update with I = |w·∇w|: Ī ← β₁Ī + (1 − β₁)I, U ← β₂U + (1 − β₂)|I − Ī|; not where a gradient overflowed."""
        assert parameter.grad is not None
        now = (parameter * parameter.grad).abs()
        finite = torch.isfinite(now).all()  # 16-bit precision skips such steps; a branch would wait for the device
        mean = beta1 * self.mean + (1 - beta1) * now
        spread = beta2 * self.spread + (1 - beta2) * (now - mean).abs()
        self.mean.copy_(torch.where(finite, mean, self.mean))
        self.spread.copy_(torch.where(finite, spread, self.spread))

    def score(self) -> Tensor:
        return self.mean * self.spread


def select_triplets(scores: Sequence[Tensor], drop: int) -> list[Tensor]:
    """Return which triplets of each layer stay (r,), bool: those with a score above the `drop`-th smallest of all.

    Triplets that tie with it are dropped too, so fewer than the budget may stay.
    """
    if drop <= 0:
        return [torch.ones_like(s, dtype=torch.bool) for s in scores]
    threshold = torch.cat(list(scores)).kthvalue(drop).values
    return [s > threshold for s in scores]


class SVDLinear(FactoredLinear):
    """A frozen linear layer or convolution W (m, n) plus ΔW = scale · B·(E ⊙ A).

    Attributes:
        factors: A (r, n), E (r, 1), B (m, r).
        importance: an `Importance` of each factor.
        kept: (r,) bool, the triplets that the last selection kept.
    """

    kept: Tensor

    def __init__(self, base: Base, factors: tuple[Tensor, Tensor, Tensor], *, scale: float, dropout: float):
        super().__init__(base, factors, scale=scale, dropout=dropout)
        self.importance = nn.ModuleList([Importance(f.detach()) for f in self.factors])
        self.register_buffer("kept", torch.ones(len(factors[0]), dtype=torch.bool, device=base.weight.device))

    def matrices(self) -> list[Tensor]:
        a, e, b = super().matrices()
        return [a * e, b]

    def update(self) -> Delta:
        """Return B·(E ⊙ A), the scale on B; its nominal rank is the number of triplets with E ≠ 0, which may be 0."""
        scaled, b = self.matrices()
        return Delta(factors=(b * self.scale, scaled), nominal=int(self.factors[1].count_nonzero()))

    def grams(self) -> tuple[Tensor, Tensor]:
        """Return AAᵀ and BᵀB (r, r)."""
        a, _, b = super().matrices()
        return a @ a.mT, b.mT @ b

    def scores(self) -> Tensor:
        """Return s(E) + mean over n of s(A) + mean over m of s(B) for every triplet (r,)."""
        a, e, b = (part.score().flatten(1) for part in self._importance())
        return e.view(-1) + (a.mean(1) + b.mean(0))

    @torch.no_grad()
    def observe(self, beta1: float, beta2: float) -> None:
        """Update the scores with the gradients of this step."""
        for part, factor in zip(self._importance(), self.factors, strict=True):
            part.update(factor, beta1, beta2)

    @torch.no_grad()
    def prune(self) -> None:
        """Set E to zero where a triplet is not kept; A, B and E continue to learn, so it may return."""
        self.factors[1].masked_fill_(~self.kept[:, None], 0.0)

    def _importance(self) -> Iterator[Importance]:
        return (cast(Importance, part) for part in self.importance)


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
