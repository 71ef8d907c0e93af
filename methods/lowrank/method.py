"""Low-rank training: every weight is a product of two thin factors from the first step on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from bench.api.method import Batch, Method
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import Delta, matricize
from methods.common.targets import compile_target, list_names, replace_layer
from methods.lowrank.config import LowRankConfig

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (nn.Linear, *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class LowRankTraining(Method):
    """Replaces layers by products U·V (see `LowRankConfig`)."""

    saves_adapter: ClassVar[bool] = False

    Config: ClassVar[type[MethodConfig]] = LowRankConfig

    config: LowRankConfig

    def adapt(self, batch: Batch) -> None:
        """Raises UsageError if the expression is invalid or matches no layer, or the rank saves nothing in any."""
        rank = self.config.rank
        layers = self._targets()
        whole = {name: reason_to_keep(layer, rank) for name, layer in layers}
        self._whole = [
            {"layer": name, "shape": "×".join(map(str, matricize(layer.weight).shape)), "whole_because": whole[name]}
            for name, layer in layers
            if whole[name]
        ]
        if len(self._whole) == len(layers):
            names = ", ".join(f"{row['layer']} ({row['shape']}: {row['whole_because']})" for row in self._whole[:4])
            raise UsageError(
                f"method.rank={rank} makes no layer smaller",
                f"all {len(layers)} layers stay whole, such as {names}",
                "Lower method.rank, or use --method full.",
            )
        for name, layer in layers:
            if not whole[name]:
                replace_layer(self.backbone, name, FactoredLayer(layer, rank))

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        return ((name, layer.update().detach()) for name, layer in self.layers())

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        for name, layer in self.layers():
            u0, v0 = layer.initial()
            yield name, u0 @ v0, layer.update()

    def report(self) -> dict[str, object]:
        factored = sum(1 for _ in self.layers())
        return {"factored_layers": factored, **({"whole_layers": self._whole} if self._whole else {})}

    def layers(self) -> Iterator[tuple[str, FactoredLayer]]:
        """Yield the products by name, in the order of the network."""
        return ((name, m) for name, m in self.backbone.named_modules() if isinstance(m, FactoredLayer))

    def _targets(self) -> list[tuple[str, Layer]]:
        target = self.config.target
        wanted = compile_target(target, {"all": ""})
        layers = [(n, cast(Layer, m)) for n, m in self.backbone.named_modules() if isinstance(m, LAYERS)]
        chosen = [(n, m) for n, m in layers if wanted.search(n)]
        if not chosen:
            raise UsageError(
                f"method.target='{target}' matches no linear layer or convolution of this backbone",
                f"it has {list_names(n for n, _ in layers)}",
                "Use all, or a regular expression that matches some of these.",
            )
        return chosen


class FactoredLayer(nn.Sequential):
    """W = U·V with U (m, r) and V (r, n): applies V, then U with the bias.

    The weight of a convolution (m, c, k, k) counts as (m, c·k·k): V is a convolution to r channels with the kernel,
    stride, padding and dilation of W, and U one of kernel 1. U and V start as U_r·√S_r and √S_r·V_rᵀ of the SVD of the
    layer's own weight: their product is its best approximation of rank r.
    """

    def __init__(self, base: Layer, rank: int) -> None:
        super().__init__(*_empty_layers(base, rank))
        self.rank = rank
        matrix = matricize(base.weight.detach())
        self.shape = (matrix.shape[0], matrix.shape[1])
        u, v = spectral_start(matrix, rank)
        first, second = cast(Layer, self[0]), cast(Layer, self[1])
        with torch.no_grad():
            first.weight.copy_(v.view_as(first.weight))
            second.weight.copy_(u.view_as(second.weight))
            if base.bias is not None:
                cast(Tensor, second.bias).copy_(base.bias)
        self.kernel = base.weight.shape
        u, v = self.factors()
        self._initial = u.detach().clone(), v.detach().clone()  # no buffers: a resumed run computes them again

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return U (m, r) and V (r, n), with gradients."""
        first, second = cast(Layer, self[0]), cast(Layer, self[1])
        return second.weight.flatten(1), first.weight.flatten(1)

    @property
    def weight(self) -> Tensor:
        """Return U·V in the shape of the layer's weight, for networks that read it, as torch's encoder layer does."""
        u, v = self.factors()
        return (u @ v).view(self.kernel)

    @property
    def bias(self) -> Tensor | None:
        return cast("Tensor | None", self[1].bias)

    def initial(self) -> tuple[Tensor, Tensor]:
        """Return U(0) and V(0), which move to the device of the factors."""
        (u0, v0), (u, v) = self._initial, self.factors()
        self._initial = u0.to(u), v0.to(v)
        return self._initial

    def update(self) -> Delta:
        """Return W(t) − W(0) = [U, −U(0)]·[V; V(0)], with gradients."""
        (u, v), (u0, v0) = self.factors(), self.initial()
        return Delta(factors=(torch.cat([u, -u0], 1), torch.cat([v, v0])), nominal=min(2 * self.rank, *self.shape))


def spectral_start(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return U_r·√S_r (m, r) and √S_r·V_rᵀ (r, n), float64 (Khodak et al. 2021, arXiv 2105.01029)."""
    u, sigma, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    root = sigma[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * vt[:rank]


def reason_to_keep(layer: Layer, rank: int) -> str:
    """Return why a layer cannot or should not be a product of rank r; empty if it can."""
    kind = type(layer)  # a subclass computes something else, or its weight is read without its forward
    if kind is not nn.Linear and kind not in CONVOLUTIONS:
        return f"a {kind.__name__}"
    if not isinstance(layer, nn.Linear) and layer.groups > 1:
        return f"{layer.groups} groups"
    m, n = matricize(layer.weight).shape
    return "r·(m + n) ≥ m·n" if rank * (m + n) >= m * n else ""


def _empty_layers(base: Layer, rank: int) -> tuple[nn.Module, nn.Module]:
    """Build the layers of V and U without values, so that torch's generator is not used."""
    place: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
    bias = base.bias is not None
    build = nn.utils.skip_init
    if isinstance(base, nn.Linear):
        return (
            build(nn.Linear, base.in_features, rank, bias=False, **place),
            build(nn.Linear, rank, base.out_features, bias=bias, **place),
        )
    geometry: dict[str, Any] = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation}
    geometry |= {"padding_mode": base.padding_mode, "bias": False}
    return (
        build(type(base), base.in_channels, rank, base.kernel_size, **geometry, **place),
        build(type(base), rank, base.out_channels, 1, bias=bias, **place),
    )
