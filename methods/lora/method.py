"""LoRA: adds a product of two thin matrices to frozen weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from bench.api.lowrank.base import Layers, LowRank
from bench.api.lowrank.factored import Base, FactoredLinear, principal_factors
from bench.api.lowrank.peft import lora_adapter
from bench.api.method import Batch
from bench.api.optimizers import ParamGroup, split_groups
from bench.api.peft import PeftAdapter, PeftFolder
from bench.config.options import Value
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import Delta, matricize
from methods.lora import peft as peft_start
from methods.lora.config import LoRAConfig

STARTS = ("start_a", "start_b")
"""Buffers of a layer that hold A₀ and B₀."""


class LoRA(LowRank):
    """Adds s·B·A to frozen layers; see `LoRAConfig`."""

    Config = LoRAConfig
    config: LoRAConfig
    frozen_exports = (*LowRank.frozen_exports, r"\.start_[ab]$")

    def prepare(self, layers: Layers, batch: Batch, generator: torch.Generator) -> None:
        """Read the adapter to start from, if there is one."""
        start = self.config.start
        self._start = peft_start.read_start(Path(start), layers, self.config.scale) if start else {}

    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        factors, magnitude = self._start.get(name, (None, None))
        pissa, dora, dropout = self.config.init == "pissa" and not factors, self.config.dora, self.config.dropout
        factors = factors or self._first_factors(name, base, rank, generator)
        scale = self.config.scale(len(factors[0]))
        if not (pissa or dora):
            return FactoredLinear(base, factors, scale=scale, dropout=dropout)
        layer = LoRALinear(base, factors, scale=scale, dropout=dropout, offset=pissa, dora=dora)
        if layer.magnitude is not None and magnitude is not None:
            layer.magnitude.data.copy_(magnitude.flatten())  # peft: (1, m, 1, 1) of a convolution
        return layer

    def _first_factors(self, name: str, base: Base, rank: int, generator: torch.Generator) -> list[Tensor]:
        """Return A (r, n) and B (m, r) at the start; PiSSA takes no rank that exceeds the smaller side."""
        weight = matricize(base.weight)
        m, n = weight.shape
        if self.config.init == "pissa":
            if rank > min(m, n):
                raise UsageError(
                    f"method.rank={rank}: {name} ({m}×{n}) has {min(m, n)} singular values",
                    "method.init=pissa starts from r of them",
                    "Lower method.rank.",
                )
            b, a = principal_factors(weight, rank, self.config.scale(rank))
            return [a, b]
        if self.config.init == "kaiming":
            # Kaiming-uniform with a=√5: U(−1/√n, 1/√n)
            a = (torch.rand(rank, n, generator=generator) * 2 - 1) / math.sqrt(n)
        else:
            a = torch.randn(rank, n, generator=generator)
        return [a, torch.zeros(m, rank)]

    def layer_parameters(self, m: int, n: int, rank: int) -> int:
        return rank * (m + n) + (m if self.config.dora else 0)

    def param_groups(self) -> list[ParamGroup]:
        """Return B at `lr_ratio` times the learning rate, and the rest."""
        fast = [layer.factors[1] for _, layer in self.layers()] if self.config.lr_ratio != 1 else []
        return split_groups(self, fast, self.config.lr_ratio)

    def export(self) -> dict[str, Tensor]:
        """Return what was trained, and PiSSA's A₀ and B₀, which define ΔW and the residual."""
        buffers = [(f"backbone.{n}", dict(layer.named_buffers(recurse=False))) for n, layer in self.layers()]
        start = {f"{name}.{key}": tensors[key] for name, tensors in buffers for key in STARTS if key in tensors}
        return {**start, **super().export()}

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return peft's LoRA or DoRA with the same A and B; for PiSSA with −B₀ and A₀ beside them."""
        assert isinstance(config, LoRAConfig)
        stable = config.scaling == "rank-stabilized"
        return lora_adapter(tensors, lambda rank: rank if config.scaling == "none" else config.alpha, rslora=stable)

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Value]:
        return peft_start.read_options(folder)


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
        dropped = self.drop(x)
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
