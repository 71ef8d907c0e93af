"""Low-rank training: every weight is a product of two thin factors from the first step on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.api.lowrank.factored import principal_factors
from bench.api.lowrank.targets import match_names, replace_layer
from bench.api.method import Batch, Method
from bench.api.network import Network
from bench.core.errors import UsageError
from bench.spectra import Delta, matricize
from methods.lowrank.config import LowRankConfig

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (nn.Linear, *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class LowRankTraining(Method):
    """Replaces layers by products U·V (see `LowRankConfig`)."""

    saves_adapter = False
    starts_at_backbone = False
    Config = LowRankConfig
    config: LowRankConfig

    def adapt(self, batch: Batch) -> None:
        """Raises UsageError if the expression is invalid or matches no layer, or the rank saves nothing in any."""
        rank = self.config.rank
        self._whole_size = sum(p.numel() for p in self.backbone.parameters())
        known = [(n, cast(Layer, m)) for n, m in self.backbone.named_modules() if isinstance(m, LAYERS)]
        layers = match_names(self.config.target, known, "linear layer or convolution of this backbone", "it has")
        self._whole = [
            {"layer": name, "shape": "×".join(map(str, matricize(layer.weight).shape)), "whole_because": reason}
            for name, layer in layers
            if (reason := reason_to_keep(layer, rank))
        ]
        if len(self._whole) == len(layers):
            names = ", ".join(f"{row['layer']} ({row['shape']}: {row['whole_because']})" for row in self._whole[:4])
            raise UsageError(
                f"method.rank={rank} makes no layer smaller",
                f"all {len(layers)} layers stay whole, such as {names}",
                "Lower method.rank, or use --method full.",
            )
        whole = {row["layer"] for row in self._whole}
        for name, layer in layers:
            if name not in whole:
                replace_layer(self.backbone, name, FactoredLayer(layer, rank))

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        return ((name, layer.update().detach()) for name, layer in self.layers())

    def layer_of(self, name: str) -> tuple[nn.Module, nn.Module]:
        """Return the product, and V, which has the stride of W."""
        product = self.backbone.get_submodule(name)
        assert isinstance(product, FactoredLayer)
        return product, product[0]

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        for name, layer in self.layers():
            u0, v0 = layer.initial()
            yield name, u0 @ v0, layer.update()

    def merged(self) -> Network:
        for name, layer in [*self.layers()]:
            replace_layer(self.backbone, name, layer.merge())
        return self.backbone

    def expected_parameters(self) -> int | None:
        shapes = [matricize(layer.weight).shape for _, layer in self.layers()]
        return self._whole_size - sum(m * n - self.config.rank * (m + n) for m, n in shapes)

    def report(self) -> dict[str, object]:
        factored = sum(1 for _ in self.layers())
        return {"factored_layers": factored, **({"whole_layers": self._whole} if self._whole else {})}

    def layers(self) -> Iterator[tuple[str, FactoredLayer]]:
        """Yield the products by name, in the order of the network."""
        return ((name, m) for name, m in self.backbone.named_modules() if isinstance(m, FactoredLayer))


class FactoredLayer(nn.Sequential):
    """W = U·V with U (m, r) and V (r, n): applies V, then U with the bias.

    The weight of a convolution (m, c, k, k) counts as (m, c·k·k): V is a convolution to r channels with the kernel,
    stride, padding and dilation of W, and U one of kernel 1. U and V start as U_r·√S_r and √S_r·V_rᵀ of the SVD of the
    layer's own weight: their product is its best approximation of rank r.
    """

    def __init__(self, base: Layer, rank: int) -> None:
        first, second = _empty_layers(base, rank)
        super().__init__(first, second)
        self.kernel = base.weight.shape
        u, v = principal_factors(matricize(base.weight), rank)
        with torch.no_grad():
            first.weight.copy_(v.view_as(first.weight))
            second.weight.copy_(u.view_as(second.weight))
            if base.bias is not None:
                cast(Tensor, second.bias).copy_(base.bias)
        u, v = self.factors()
        self._initial = u.detach().clone(), v.detach().clone()  # no buffers: a resumed run computes them again

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return U (m, r) and V (r, n), with gradients."""
        first, second = (cast(Layer, layer) for layer in self)
        return second.weight.flatten(1), first.weight.flatten(1)

    @property
    def weight(self) -> Tensor:
        """Return U·V in the shape of the layer's weight, for networks that read it, as torch's encoder layer does."""
        u, v = self.factors()
        return (u @ v).view(self.kernel)

    @property
    def bias(self) -> Tensor | None:
        return cast("Tensor | None", self[1].bias)

    @torch.no_grad()
    def merge(self) -> Layer:
        """Return one layer with U·V, multiplied in float64, as its weight."""
        first, second = (cast(Layer, layer) for layer in self)
        u, v = self.factors()
        rows = {"weight": (u.double() @ v.double()).view(self.kernel).to(u)}
        if second.bias is not None:
            rows["bias"] = second.bias
        m, n = self.kernel[:2]
        bias: dict[str, Any] = {"bias": "bias" in rows, "device": "meta"}
        if isinstance(first, nn.Linear):
            layer = nn.Linear(n, m, **bias)
        else:
            layer = type(first)(n, m, **{key: getattr(first, key) for key in GEOMETRY}, **bias)
        layer.load_state_dict(rows, assign=True)
        return layer

    def initial(self) -> tuple[Tensor, Tensor]:
        """Return U(0) and V(0), which move to the device of the factors."""
        (u0, v0), (u, v) = self._initial, self.factors()
        self._initial = u0.to(u), v0.to(v)
        return self._initial

    def update(self) -> Delta:
        """Return W(t) − W(0) = [U, −U(0)]·[V; V(0)], with gradients."""
        (u, v), (u0, v0) = self.factors(), self.initial()
        nominal = min(2 * len(v), len(u), v.shape[1])
        return Delta(factors=(torch.cat([u, -u0], 1), torch.cat([v, v0])), nominal=nominal)


def reason_to_keep(layer: Layer, rank: int) -> str:
    """Return why a layer cannot or should not be a product of rank r; empty if it can."""
    kind = type(layer)  # a subclass computes something else, or its weight is read without its forward
    if kind is not nn.Linear and kind not in CONVOLUTIONS:
        return f"a {kind.__name__}"
    if not isinstance(layer, nn.Linear) and layer.groups > 1:
        return f"{layer.groups} groups"
    m, n = matricize(layer.weight).shape
    return "r·(m + n) ≥ m·n" if rank * (m + n) >= m * n else ""


def _empty_layers(base: Layer, rank: int) -> tuple[Layer, Layer]:
    """Build the layers of V and U without values, so that torch's generator is not used."""
    place: dict[str, object] = {"device": base.weight.device, "dtype": base.weight.dtype}
    bias = {**place, "bias": base.bias is not None}
    if isinstance(base, nn.Linear):
        first = nn.utils.skip_init(nn.Linear, base.in_features, rank, bias=False, **place)
        second = nn.utils.skip_init(nn.Linear, rank, base.out_features, **bias)
    else:
        geometry = {key: getattr(base, key) for key in GEOMETRY}
        first = nn.utils.skip_init(type(base), base.in_channels, rank, bias=False, **geometry, **place)
        second = nn.utils.skip_init(type(base), rank, base.out_channels, 1, **bias)
    return cast(Layer, first), cast(Layer, second)
