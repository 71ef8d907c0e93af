"""A frozen linear map with a factored update: a linear layer, or a convolution by its matricisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.spectra import Delta, matricize

Base = nn.Linear | nn.Conv2d
"""What can be adapted. A convolution (out, in, k, k) of one group is the matrix (out, in·k·k) on its patches."""


def matrix(base: Base) -> Tensor:
    """The weight as a matrix (m, n); a view."""
    return matricize(base.weight)


def enter(base: Base, x: Tensor, factor: Tensor) -> Tensor:
    """A factor (r, n) in the place of the weight, without bias: for a convolution with its stride, padding, dilation.

    Args:
        base: the layer.
        x: its input (…, n), or (B, in, H, W).
        factor: (r, n), or (r, in, k, k).

    Returns: (…, r), or (B, r, H', W').
    """
    if isinstance(base, nn.Conv2d):
        kernel = factor.view(len(factor), *base.weight.shape[1:])
        return base._conv_forward(x, kernel, None)  # pyright: ignore[reportPrivateUsage] - the one that knows padding
    return F.linear(x, factor)


def follow(base: Base, x: Tensor, factor: Tensor) -> Tensor:
    """A later factor (q, r) on what `enter` gave: for a convolution 1×1."""
    return F.conv2d(x, factor[:, :, None, None]) if isinstance(base, nn.Conv2d) else F.linear(x, factor)


def by_row(base: Base, values: Tensor) -> Tensor:
    """One number per row of the weight (m,), in a shape that multiplies the layer's output."""
    return values[:, None, None] if isinstance(base, nn.Conv2d) else values


class FactoredLinear(nn.Module):
    """A frozen linear layer or convolution W (m, n) plus ΔW = scale · F_L·…·F_1.

    Attributes:
        factors: F_1 (·, n), …, F_L (m, ·), in the order they meet the input; F_1 of a convolution as (·, in, k, k).
    """

    def __init__(self, base: Base, factors: Sequence[Tensor], *, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        first, *others = (f.to(base.weight) for f in factors)
        first = first.reshape(len(first), *base.weight.shape[1:])
        self.factors = nn.ParameterList([nn.Parameter(f) for f in (first, *others)])
        self.scale, self.dropout, self.merged = scale, dropout, False

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, m), or (B, in, H, W) → (B, m, H', W')."""
        out = self.base(x)
        return out if self.merged else out + self.through(F.dropout(x, self.dropout, self.training), self.matrices())

    def through(self, x: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """ΔW·x for factors in the order they meet the input, with the scale."""
        first, *others = factors
        update = enter(self.base, x, first)
        for factor in others:
            update = follow(self.base, update, factor)
        return update * self.scale

    def matrices(self) -> list[Tensor]:
        """The factors as matrices."""
        return [factor.flatten(1) for factor in self.factors]

    def delta(self) -> Delta:
        """ΔW as it is."""
        return self.update().detach()

    def update(self) -> Delta:
        """ΔW with its history, as factors, the scale on the last one."""
        last, *others = reversed(self.matrices())
        nominal = min(min(f.shape) for f in (last, *others))
        return Delta(factors=(last * self.scale, *others), nominal=nominal)

    @torch.no_grad()
    def merge(self) -> None:
        """Add ΔW to the weight; the forward then costs what the plain layer costs. Merging twice adds once."""
        if not self.merged:
            self.base.weight += self.delta().dense().view_as(self.base.weight)
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take ΔW out of the weight again, up to rounding."""
        if self.merged:
            self.base.weight -= self.delta().dense().view_as(self.base.weight)
            self.merged = False
