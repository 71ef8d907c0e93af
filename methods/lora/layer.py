"""The layer of PiSSA and DoRA: LoRA's product minus its start, and a trained length of every row."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.spectra import Delta, matricize
from methods.common.factored import Base, FactoredLinear

STARTS = ("start_a", "start_b")
"""Buffers of a layer that hold A₀ and B₀."""


class LoRALinear(FactoredLinear):
    """g ⊙ V by rows with V = W + s·(B·A − B₀·A₀): PiSSA without g, DoRA without B₀·A₀, or both.

    `base` keeps W itself and not PiSSA's residual, so that ΔW refers to the pretrained weight.

    Attributes:
        start_a, start_b: A₀ and B₀, frozen, in the shapes of A and B; None without `offset`.
        magnitude: μ (m,), the trained row norms; None without `dora`.
    """

    start_a: Tensor | None
    start_b: Tensor | None
    magnitude: nn.Parameter | None

    def __init__(
        self, base: Base, factors: list[Tensor], *, scale: float, dropout: float, offset: bool, dora: bool
    ) -> None:
        super().__init__(base, factors, scale=scale, dropout=dropout)
        for name, factor in zip(STARTS, self.factors, strict=True):
            self.register_buffer(name, factor.detach().clone() if offset else None)
        self.magnitude = nn.Parameter(_norms(self._direction())) if dora else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the adapted layer; dropout acts on the input of everything that differs from the frozen network."""
        dropping = self.training and self.dropout > 0
        dropped = F.dropout(x, self.dropout, dropping)
        update = self.apply_factors(dropped, self.matrices())
        out = self._residual(x)
        if self.magnitude is not None:
            gain = self._per_output(self.magnitude / _norms(self._direction()))
            update = gain * update + (gain - 1) * (self._residual(dropped) if dropping else out)
        bias = cast(Tensor | None, self.base.bias)  # torch declares it as never None
        return out + update if bias is None else out + update + self._per_output(bias)

    def update(self) -> Delta:
        """Return ΔW from the pretrained W, with gradients: as factors, or dense with a magnitude."""
        if self.magnitude is None:
            return self._low_rank()
        direction = self._weight() + self._low_rank().dense()
        gain = self.magnitude / _norms(direction)
        return Delta(factors=(gain[:, None] * direction - self._weight(),), nominal=min(direction.shape))

    def _weight(self) -> Tensor:
        return matricize(self.base.weight)

    def _low_rank(self) -> Delta:
        """Return s·(B·A − B₀·A₀) as two factors."""
        product = super().update()
        if self.start_a is None or self.start_b is None:
            return product
        b, a = product.factors
        b, a = torch.cat([b, -self.scale * self.start_b], 1), torch.cat([a, self.start_a.flatten(1)])
        return Delta(factors=(b, a), nominal=min(2 * product.nominal, *self._weight().shape))

    def _direction(self) -> Tensor:
        """Return V (m, n), a constant in the backward pass."""
        return self._weight() + self._low_rank().detach().dense()

    def _residual(self, x: Tensor) -> Tensor:
        """Return (W − s·B₀·A₀)·x, the frozen part, without bias."""
        out = self.apply_first(x, self.base.weight)
        if self.start_a is None or self.start_b is None:
            return out
        return out - self.apply_factors(x, [self.start_a, self.start_b])

    def _per_output(self, values: Tensor) -> Tensor:
        """Shape one number per row of the weight (m,) so that it multiplies the layer's output."""
        return values[:, None, None] if isinstance(self.base, nn.Conv2d) else values


def _norms(matrix: Tensor) -> Tensor:
    """Return row norms (m,), clamped above 0: a zero row stays zero and causes no division by zero."""
    return torch.linalg.vector_norm(matrix, dim=1).clamp_min(torch.finfo(matrix.dtype).tiny)
