"""The layer of PiSSA and DoRA: LoRA's product with a start of its own, and with a trained length of every row."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.core.errors import UsageError
from bench.spectra import Delta
from methods.common.factored import Base, FactoredLinear, by_row, enter, matrix

STARTS = ("start_a", "start_b")
"""Names of A₀ and B₀ in a layer."""


class LoRALinear(FactoredLinear):
    """g ⊙ V by rows with V = W + s·(B·A − B₀·A₀): PiSSA without g, DoRA without B₀·A₀, or both.

    `base` keeps W itself, not PiSSA's residual, so that merging, unmerging and ΔW speak of the pretrained weight.

    Attributes:
        start_a, start_b: A₀ and B₀, frozen, in the shapes of A and B; None without `offset`.
        magnitude: μ (m,), the trained row norms; None without `dora`.
        plain: the weight while `base` is merged with a magnitude: W' alone does not tell it where μ is 0.
    """

    start_a: Tensor | None
    start_b: Tensor | None
    plain: Tensor | None
    magnitude: nn.Parameter | None

    def __init__(
        self, base: Base, factors: list[Tensor], *, scale: float, dropout: float, offset: bool, dora: bool
    ) -> None:
        super().__init__(base, factors, scale=scale, dropout=dropout)
        for name, factor in zip(STARTS, self.factors, strict=True):
            self.register_buffer(name, factor.detach().clone() if offset else None)
        self.register_buffer("plain", None, persistent=False)
        self.magnitude = nn.Parameter(_norms(self._direction())) if dora else None

    def forward(self, x: Tensor) -> Tensor:
        """As the plain layer's. Dropout acts on the input of all that differs from the frozen network."""
        if self.merged:
            return self.base(x)
        dropping = self.training and self.dropout > 0
        dropped = F.dropout(x, self.dropout, dropping)
        update = self.through(dropped, self.matrices())
        out = self._residual(x)
        if self.magnitude is not None:
            gain = by_row(self.base, self.magnitude / _norms(self._direction()))
            update = gain * update + (gain - 1) * (self._residual(dropped) if dropping else out)
        bias = cast(Tensor | None, self.base.bias)  # torch declares it as never None
        return out + update if bias is None else out + update + by_row(self.base, bias)

    def update(self) -> Delta:
        """ΔW from the pretrained W, with its history: as factors, dense with a magnitude."""
        if self.magnitude is None:
            return self._low_rank()
        direction = self._weight() + self._low_rank().dense()
        gain = self.magnitude / _norms(direction)
        return Delta(factors=(gain[:, None] * direction - self._weight(),), nominal=min(direction.shape))

    @torch.no_grad()
    def merge(self) -> None:
        """Add ΔW to the weight, once; with a magnitude W is kept beside it."""
        if self.magnitude is not None and not self.merged:
            self.plain = self.base.weight.clone()
        super().merge()

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take ΔW out of the weight again; with a magnitude exactly, else up to rounding."""
        if self.plain is None:
            super().unmerge()
        else:
            self.base.weight.copy_(self.plain)
            self.plain, self.merged = None, False

    def _weight(self) -> Tensor:
        """W (m, n), also while merged."""
        return matrix(self.base) if self.plain is None else self.plain.flatten(1)

    def _low_rank(self) -> Delta:
        """s·(B·A − B₀·A₀) as two factors."""
        product = super().update()
        if self.start_a is None or self.start_b is None:
            return product
        b, a = product.factors
        b, a = torch.cat([b, -self.scale * self.start_b], 1), torch.cat([a, self.start_a.flatten(1)])
        return Delta(factors=(b, a), nominal=min(2 * product.nominal, *matrix(self.base).shape))

    def _direction(self) -> Tensor:
        """V (m, n), a constant in the backward pass."""
        return self._weight() + self._low_rank().detach().dense()

    def _residual(self, x: Tensor) -> Tensor:
        """The frozen path (W − s·B₀·A₀)·x, without bias."""
        out = enter(self.base, x, self.base.weight)
        if self.start_a is None or self.start_b is None:
            return out
        return out - self.through(x, [self.start_a, self.start_b])


def _norms(matrix: Tensor) -> Tensor:
    """Row norms (m,), never 0: a row that is 0 stays 0 and divides by no zero."""
    return torch.linalg.vector_norm(matrix, dim=1).clamp_min(torch.finfo(matrix.dtype).tiny)


def principal(name: str, base: Base, rank: int, scale: float) -> list[Tensor]:
    """PiSSA's A₀ (r, n) and B₀ (m, r): s·B₀·A₀ is the best approximation of rank r of the weight of `base`.

    Raises:
        UsageError: r exceeds the smaller side.
    """
    weight = matrix(base).detach()
    m, n = weight.shape
    if rank > min(m, n):
        raise UsageError(
            f"method.rank={rank}: {name} ({m}×{n}) has {min(m, n)} singular values",
            "method.init=pissa starts from r of them",
            "Lower method.rank.",
        )
    u, sigma, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    root = (sigma[:rank] / scale).sqrt()
    return [root[:, None] * vt[:rank], u[:, :rank] * root]
