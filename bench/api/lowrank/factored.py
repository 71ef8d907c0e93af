"""A frozen linear layer or convolution with a trained, factored update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.spectra import Delta

Base = nn.Linear | nn.Conv2d
"""What can be adapted. A convolution (out, in, k, k) of one group counts as the matrix (out, in·k·k) on its patches."""


class FactoredLinear(nn.Module):
    """A frozen linear layer or convolution W (m, n) plus ΔW = scale · F_L·…·F_1.

    Attributes:
        factors: F_1 (·, n), …, F_L (m, ·), in the order in which they are applied; F_1 of a convolution is
            (·, in, k, k).
        called: whether the network ever called the layer; where it reads `weight` instead, no dropout acts.
    """

    called = False

    def __init__(self, base: Base, factors: Sequence[Tensor], *, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        first, *others = (f.to(base.weight) for f in factors)
        first = first.reshape(len(first), *base.weight.shape[1:])
        self.factors = nn.ParameterList([nn.Parameter(f) for f in (first, *others)])
        self.scale, self.dropout = scale, dropout

    @property
    def weight(self) -> Tensor:
        """W + ΔW in the shape of W, for networks that read the weight instead of calling the layer."""
        return self.base.weight + self.update().dense().view_as(self.base.weight)

    @property
    def bias(self) -> Tensor | None:
        """The bias of the layer that was replaced."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, m), or (B, in, H, W) → (B, m, H', W')."""
        return self.base(x) + self.apply_factors(self.drop(x), self.matrices())

    def drop(self, x: Tensor) -> Tensor:
        """Return the input of the update: x, under dropout in training."""
        self.called = True
        return F.dropout(x, self.dropout, self.training)

    def apply_factors(self, x: Tensor, factors: Sequence[Tensor]) -> Tensor:
        """Return ΔW·x, with the scale, for factors in the order in which they are applied."""
        first, *others = factors
        update = self.apply_first(x, first)
        for factor in others:
            conv = isinstance(self.base, nn.Conv2d)
            update = F.conv2d(update, factor[:, :, None, None]) if conv else F.linear(update, factor)
        return update * self.scale

    def apply_first(self, x: Tensor, factor: Tensor) -> Tensor:
        """Apply a factor (r, n) in place of the weight, with its stride, padding and dilation, without bias."""
        if isinstance(self.base, nn.Conv2d):
            kernel = factor.view(len(factor), *self.base.weight.shape[1:])
            return self.base._conv_forward(x, kernel, None)  # pyright: ignore[reportPrivateUsage] - it pads
        return F.linear(x, factor)

    def matrices(self) -> list[Tensor]:
        """Return F_1 (·, n), …, F_L (m, ·), that of a convolution flattened to (·, in·k·k)."""
        return [factor.flatten(1) for factor in self.factors]

    @torch.no_grad()
    def merge(self) -> Base:
        """Return the layer that was replaced with W + ΔW, added in float64, as its weight."""
        dtype = self.base.weight.dtype
        self.double()
        merged = self.weight.to(dtype)
        self.base.to(dtype).weight.copy_(merged)
        return self.base

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


def principal_factors(matrix: Tensor, rank: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return U_r·√(S_r/scale) (m, r) and √(S_r/scale)·V_rᵀ (r, n) of the SVD, float64.

    Their product times `scale` is the best approximation of that rank.
    """
    u, sigma, vt = torch.linalg.svd(matrix.detach().double(), full_matrices=False)
    root = (sigma[:rank] / scale).sqrt()
    return u[:, :rank] * root, root[:, None] * vt[:rank]
