"""AdaLoRA's layer: an update in SVD form whose triplets are scored, and kept or set to zero."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.spectra import Delta
from methods.adalora.budget import Importance, triplet_scores
from methods.common.factored import Base, FactoredLinear


class SVDLinear(FactoredLinear):
    """A frozen linear layer or convolution W (m, n) plus ΔW = scale · B·(E ⊙ A).

    Attributes:
        factors: A (r, n), E (r, 1), B (m, r).
        importance: of each of the three.
        kept: (r,) bool, the triplets that the last choice left.
    """

    kept: Tensor

    def __init__(self, base: Base, factors: tuple[Tensor, Tensor, Tensor], *, scale: float, dropout: float):
        super().__init__(base, factors, scale=scale, dropout=dropout)
        self.importance = nn.ModuleList([Importance(f.detach()) for f in self.factors])
        self.register_buffer("kept", torch.ones(len(factors[0]), dtype=torch.bool, device=base.weight.device))

    def matrices(self) -> list[Tensor]:
        """E ⊙ A and B."""
        a, e, b = super().matrices()
        return [a * e, b]

    def update(self) -> Delta:
        """B·(E ⊙ A), the scale on B; its nominal rank is the number of triplets with E ≠ 0, which may be 0."""
        scaled, b = self.matrices()
        return Delta(factors=(b * self.scale, scaled), nominal=int(self.factors[1].count_nonzero()))

    def grams(self) -> tuple[Tensor, Tensor]:
        """AAᵀ and BᵀB (r, r)."""
        a, _, b = super().matrices()
        return a @ a.mT, b.mT @ b

    def scores(self) -> Tensor:
        """Importance of every triplet (r,)."""
        return triplet_scores(*(part.score().flatten(1) for part in self._importance()))

    @torch.no_grad()
    def observe(self, beta1: float, beta2: float) -> None:
        """Take weights and gradients of this step into the scores."""
        for part, factor in zip(self._importance(), self.factors, strict=True):
            part.update(factor, beta1, beta2)

    @torch.no_grad()
    def prune(self) -> None:
        """Set E to zero where a triplet is not kept; A, B and E go on learning, so it may come back."""
        self.factors[1].masked_fill_(~self.kept[:, None], 0.0)

    def _importance(self) -> Iterator[Importance]:
        return iter(self.importance)  # type: ignore[arg-type]
