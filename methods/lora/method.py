"""LoRA: adds a product of two thin matrices to frozen weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from bench.api.method import Batch
from bench.api.optimizers import ParamGroup
from bench.api.peft import PeftAdapter, PeftFolder
from bench.config.options import Value
from bench.config.sections import MethodConfig
from methods.common import peft as peft_format
from methods.common.factored import Base, FactoredLinear, matrix
from methods.common.lowrank import LowRank
from methods.lora import peft as peft_start
from methods.lora.config import LoRAConfig
from methods.lora.layer import STARTS, LoRALinear, principal


class LoRA(LowRank):
    """Adds s·B·A to frozen layers; see `LoRAConfig`."""

    Config: ClassVar[type[MethodConfig]] = LoRAConfig

    config: LoRAConfig

    def prepare(
        self,
        layers: Sequence[tuple[str, Base]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        start = self.config.start
        self._start = peft_start.read_start(Path(start), layers, self.config.scale) if start else {}

    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        assert rank is not None
        factors, magnitude = self._start.get(name, ([], None))
        scale = self.config.scale(len(factors[0]) if factors else rank)
        pissa, dora, dropout = self.config.init == "pissa" and not factors, self.config.dora, self.config.dropout
        if not factors:
            factors = principal(name, base, rank, scale) if pissa else self._factors(base, rank, generator)
        if not (pissa or dora):
            return FactoredLinear(base, factors, scale=scale, dropout=dropout)
        layer = LoRALinear(base, factors, scale=scale, dropout=dropout, offset=pissa, dora=dora)
        if layer.magnitude is not None and magnitude is not None:
            layer.magnitude.data.copy_(magnitude.flatten())  # peft: (1, m, 1, 1) of a convolution
        return layer

    def param_groups(self) -> list[ParamGroup]:
        if self.config.lr_ratio == 1:
            return super().param_groups()
        b = [layer.factors[1] for _, layer in self.layers()]
        fast = {id(p) for p in b}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in fast]
        return [{"params": rest}, {"params": b, "lr_scale": self.config.lr_ratio}]

    def export(self) -> dict[str, Tensor]:
        """Return what was trained, and PiSSA's A₀ and B₀, which define ΔW and the residual."""
        start = {f"backbone.{n}.{key}": t for n, layer in self.layers() for key, t in layer.named_buffers()}
        return {**{n: t for n, t in start.items() if n.endswith(STARTS)}, **super().export()}

    def _factors(self, base: Base, rank: int, generator: torch.Generator) -> list[Tensor]:
        m, n = matrix(base).shape
        if self.config.init == "kaiming":
            # Kaiming-uniform with a=√5: U(−1/√n, 1/√n)
            a = (torch.rand(rank, n, generator=generator) * 2 - 1) / math.sqrt(n)
        else:
            a = torch.randn(rank, n, generator=generator)
        return [a, torch.zeros(m, rank)]

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return peft's LoRA or DoRA with the same A and B; for PiSSA with −B₀ and A₀ beside them."""
        assert isinstance(config, LoRAConfig)
        stable = config.scaling == "rank-stabilized"
        return peft_format.lora(tensors, lambda rank: rank if config.scaling == "none" else config.alpha, rslora=stable)

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Value]:
        return peft_start.read_options(folder)
