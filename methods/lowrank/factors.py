"""Layers whose weight is a product of two trained factors, from layers that have it whole."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.spectra import Delta, matricize

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (nn.Linear, *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class Factors(nn.Sequential):
    """W = U·V with U (m, r) and V (r, n): V, then U with the bias.

    The weight of a convolution (m, c, k, k) counts as (m, c·k·k): V is a convolution to r channels with the kernel,
    stride, padding and dilation of W, and U one of kernel 1. The two start as U_r·√S_r and √S_r·V_rᵀ of the singular
    value decomposition of the layer's own weight, whose best approximation of rank r is their product.

    Attributes:
        shape: (m, n).
        rank: r.
    """

    def __init__(self, base: Layer, rank: int) -> None:
        super().__init__(*_narrow(base, rank))
        self.rank = rank
        matrix = matricize(base.weight.detach())
        self.shape = (matrix.shape[0], matrix.shape[1])
        u, v = spectral(matrix, rank)
        first, second = self
        with torch.no_grad():
            cast(Tensor, first.weight).copy_(v.view_as(cast(Tensor, first.weight)))
            cast(Tensor, second.weight).copy_(u.view_as(cast(Tensor, second.weight)))
            if base.bias is not None:
                cast(Tensor, second.bias).copy_(base.bias)
        self.kernel = base.weight.shape
        u, v = self.factors()
        self._start = u.detach().clone(), v.detach().clone()  # no buffers: an interrupted run makes them again

    def factors(self) -> tuple[Tensor, Tensor]:
        """U (m, r) and V (r, n), with their history."""
        first, second = self
        return cast(Tensor, second.weight).flatten(1), cast(Tensor, first.weight).flatten(1)

    @property
    def weight(self) -> Tensor:
        """U·V in the shape of the layer's weight, for networks that read it (torch's encoder layer does)."""
        u, v = self.factors()
        return (u @ v).view(self.kernel)

    @property
    def bias(self) -> Tensor | None:
        """The layer's."""
        return cast("Tensor | None", self[1].bias)

    def start(self) -> tuple[Tensor, Tensor]:
        """U(0) and V(0), from now on where the factors are."""
        (u0, v0), (u, v) = self._start, self.factors()
        self._start = u0.to(u), v0.to(v)
        return self._start

    def update(self) -> Delta:
        """W(t) − W(0) = [U, −U(0)]·[V; V(0)], with its history."""
        (u, v), (u0, v0) = self.factors(), self.start()
        return Delta(factors=(torch.cat([u, -u0], 1), torch.cat([v, v0])), nominal=min(2 * self.rank, *self.shape))


def spectral(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U_r·√S_r (m, r) and √S_r·V_rᵀ (r, n), float64 (Khodak et al. 2021, arXiv 2105.01029)."""
    u, sigma, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = sigma[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vt[:rank]


def why_whole(module: nn.Module, rank: int) -> str:
    """Why a layer cannot be, or should not be, a product of rank r; empty for one that can."""
    kind = type(module)  # a subclass computes something else, or is read past its forward
    if kind is not nn.Linear and kind not in CONVOLUTIONS:
        return f"a {kind.__name__}"
    layer = cast(Any, module)
    if getattr(layer, "groups", 1) > 1:
        return f"{layer.groups} groups"
    m, n = matricize(layer.weight).shape
    return "r·(m + n) ≥ m·n" if rank * (m + n) >= m * n else ""


def _narrow(base: Layer, rank: int) -> tuple[nn.Module, nn.Module]:
    """The layers of V and U with memory, but without values; torch's generator is left alone."""
    place: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
    bias = base.bias is not None
    make = nn.utils.skip_init
    if isinstance(base, nn.Linear):
        return (
            make(nn.Linear, base.in_features, rank, bias=False, **place),
            make(nn.Linear, rank, base.out_features, bias=bias, **place),
        )
    ways: dict[str, Any] = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation}
    ways |= {"padding_mode": base.padding_mode, "bias": False}
    return (
        make(type(base), base.in_channels, rank, base.kernel_size, **ways, **place),
        make(type(base), rank, base.out_channels, 1, bias=bias, **place),
    )
