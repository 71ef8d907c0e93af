"""AdaLoRA's budget: how many triplets may stay at a step, how much each one matters, and which ones stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The cubic budget of arXiv 2303.10512, equation 12, over steps t = 1 … T.

    Attributes:
        initial, target: b₀ and b_T, triplets of all layers together.
        begins: t_i, last step of the full budget.
        ends: T − t_f, where the budget is b_T and the choice of triplets becomes final.
        every: ΔT, steps between two choices before that.
    """

    initial: int
    target: int
    begins: int
    ends: int
    every: int = 1

    def budget(self, step: int) -> int:
        """b(t): b₀ up to `begins`, b_T + (b₀ − b_T)·(1 − (t − t_i)/(T − t_i − t_f))³ rounded down, b_T from `ends`."""
        if step <= self.begins:
            return self.initial
        if step >= self.ends:
            return self.target
        left = 1 - (step - self.begins) / (self.ends - self.begins)
        return int((self.initial - self.target) * left**3 + self.target)

    def chooses(self, step: int) -> bool:
        """Whether triplets are ranked anew at this step."""
        return step == self.ends or (self.begins < step < self.ends and step % self.every == 0)

    def course(self, points: int = 20) -> list[dict[str, int]]:
        """Step and budget wherever triplets are ranked anew, at most about `points` of them, the last always."""
        chosen = [step for step in range(self.begins + 1, self.ends + 1) if self.chooses(step)]
        spread = chosen[:-1][:: max(1, len(chosen) // points)]
        return [{"step": step, "budget": self.budget(step)} for step in (*spread, self.ends)]


def steps(share: float, total: int) -> int:
    """A share of all steps where it is below 1, else that many steps."""
    return int(share * total) if share < 1 else int(share)


class Importance(nn.Module):
    """Running sensitivity Ī and uncertainty U of a parameter's entries: arXiv 2303.10512, equations 8 to 11.

    Both are buffers of the parameter's shape, so that a checkpoint holds them.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, parameter: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros_like(parameter))
        self.register_buffer("spread", torch.zeros_like(parameter))

    def update(self, parameter: nn.Parameter, beta1: float, beta2: float) -> None:
        """I = |w·∇w|; Ī ← β₁Ī + (1 − β₁)I; U ← β₂U + (1 − β₂)|I − Ī|; nothing where a gradient overflowed."""
        assert parameter.grad is not None
        now = (parameter * parameter.grad).abs()
        fine = torch.isfinite(now).all()  # 16-bit precision skips such steps; a branch would wait for the device
        mean = beta1 * self.mean + (1 - beta1) * now
        spread = beta2 * self.spread + (1 - beta2) * (now - mean).abs()
        self.mean.copy_(torch.where(fine, mean, self.mean))
        self.spread.copy_(torch.where(fine, spread, self.spread))

    def score(self) -> Tensor:
        """s = Ī·U."""
        return self.mean * self.spread


def triplet_scores(a: Tensor, e: Tensor, b: Tensor) -> Tensor:
    """S (r,) = s(E) + mean over n of s(A) + mean over m of s(B), from s(A) (r, n), s(E) (r, 1) and s(B) (m, r)."""
    return e.view(-1) + (a.mean(1) + b.mean(0))


def keep(scores: Sequence[Tensor], drop: int) -> list[Tensor]:
    """Per layer, which triplets stay (r,), bool: all whose score exceeds the `drop`-th smallest of all layers.

    Those that tie with it go too, so that fewer than asked may stay.
    """
    if drop <= 0:
        return [torch.ones_like(s, dtype=torch.bool) for s in scores]
    threshold = torch.cat(list(scores)).kthvalue(drop).values
    return [s > threshold for s in scores]
