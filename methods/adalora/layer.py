"""AdaLoRA's layer: an update in SVD form whose triplets are scored, and kept or set to zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from bench.spectra import Delta
from methods.common.factored import Base, FactoredLinear


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
        """Return s = Ī·U."""
        return self.mean * self.spread


def triplet_scores(a: Tensor, e: Tensor, b: Tensor) -> Tensor:
    """Return S (r,) = s(E) + mean over n of s(A) + mean over m of s(B), from s(A) (r, n), s(E) (r, 1), s(B) (m, r)."""
    return e.view(-1) + (a.mean(1) + b.mean(0))


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
        """Return E ⊙ A and B."""
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
        """Return the importance of every triplet (r,)."""
        return triplet_scores(*(part.score().flatten(1) for part in self._importance()))

    @torch.no_grad()
    def observe(self, beta1: float, beta2: float) -> None:
        for part, factor in zip(self._importance(), self.factors, strict=True):
            part.update(factor, beta1, beta2)

    @torch.no_grad()
    def prune(self) -> None:
        """Set E to zero where a triplet is not kept; A, B and E continue to learn, so it may return."""
        self.factors[1].masked_fill_(~self.kept[:, None], 0.0)

    def _importance(self) -> Iterator[Importance]:
        return (cast(Importance, part) for part in self.importance)
