"""A frozen linear layer or convolution with a trained, factored update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.spectra import Delta, matricize

Base = nn.Linear | nn.Conv2d
"""What can be adapted. A convolution (out, in, k, k) of one group counts as the matrix (out, in·k·k) on its patches."""


def matrix(base: Base) -> Tensor:
    """Return the weight as a matrix (m, n); a view."""
    return matricize(base.weight)


def apply_first(base: Base, x: Tensor, factor: Tensor) -> Tensor:
    """Apply the factor next to the input in place of the weight, without bias.

    In a convolution it acts with the layer's stride, padding and dilation.

    Args:
        x: its input (…, n), or (B, in, H, W).
        factor: (r, n), or (r, in, k, k).

    Returns: (…, r), or (B, r, H', W').
    """
    if isinstance(base, nn.Conv2d):
        kernel = factor.view(len(factor), *base.weight.shape[1:])
        return base._conv_forward(x, kernel, None)  # pyright: ignore[reportPrivateUsage] - it applies padding modes
    return F.linear(x, factor)


def apply_next(base: Base, x: Tensor, factor: Tensor) -> Tensor:
    """Apply a later factor (q, r) to the result of `apply_first`; in a convolution as one of 1×1."""
    return F.conv2d(x, factor[:, :, None, None]) if isinstance(base, nn.Conv2d) else F.linear(x, factor)


def per_output(base: Base, values: Tensor) -> Tensor:
    """Shape one number per row of the weight (m,) so that it multiplies the layer's output."""
    return values[:, None, None] if isinstance(base, nn.Conv2d) else values


class FactoredLinear(nn.Module):
    """A frozen linear layer or convolution W (m, n) plus ΔW = scale · F_L·…·F_1.

    Attributes:
        factors: F_1 (·, n), …, F_L (m, ·), in the order in which they are applied; F_1 of a convolution is
            (·, in, k, k).
    """

    def __init__(self, base: Base, factors: Sequence[Tensor], *, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        first, *others = (f.to(base.weight) for f in factors)
        first = first.reshape(len(first), *base.weight.shape[1:])
        self.factors = nn.ParameterList([nn.Parameter(f) for f in (first, *others)])
        self.scale, self.dropout = scale, dropout

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, m), or (B, in, H, W) → (B, m, H', W')."""
        return self.base(x) + self.apply_factors(F.dropout(x, self.dropout, self.training), self.matrices())

    def apply_factors(self, x: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Return ΔW·x, with the scale, for factors in the order in which they are applied."""
        first, *others = factors
        update = apply_first(self.base, x, first)
        for factor in others:
            update = apply_next(self.base, update, factor)
        return update * self.scale

    def matrices(self) -> list[Tensor]:
        return [factor.flatten(1) for factor in self.factors]

    def delta(self) -> Delta:
        """Return ΔW without gradients."""
        return self.update().detach()

    def update(self) -> Delta:
        """Return ΔW with gradients, as factors, the last of them times the scale."""
        last, *others = reversed(self.matrices())
        nominal = min(min(f.shape) for f in (last, *others))
        return Delta(factors=(last * self.scale, *others), nominal=nominal)


def orthogonal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw a matrix (rows, columns), float64, with orthonormal columns, or rows if there are fewer of them.

    Uniform over such matrices (Mezzadri 2007). A wide one is the transpose of a tall draw: torch would draw its numbers
    in another order.
    """
    rows, columns = shape
    tall = torch.empty(max(rows, columns), min(rows, columns), dtype=torch.float64)
    nn.init.orthogonal_(tall, generator=generator)
    return tall if rows >= columns else tall.mT
