"""LoRA: adds a product of two thin matrices to frozen weights."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from bench.api.method import Batch
from bench.api.optimizers import ParamGroup
from bench.api.peft import PeftAdapter, PeftFolder
from bench.config.options import Value
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import matricize
from methods.common import peft as peft_format
from methods.common.factored import Base, FactoredLinear, principal_factors
from methods.common.groups import split_groups
from methods.common.lowrank import Layers, LowRank
from methods.lora import peft as peft_start
from methods.lora.config import LoRAConfig
from methods.lora.layer import STARTS, LoRALinear


class LoRA(LowRank):
    """Adds s·B·A to frozen layers; see `LoRAConfig`."""

    Config = LoRAConfig
    config: LoRAConfig

    def prepare(self, layers: Layers, batch: Batch, generator: torch.Generator) -> None:
        """Read the adapter to start from, if there is one."""
        start = self.config.start
        self._start = peft_start.read_start(Path(start), layers, self.config.scale) if start else {}

    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        """Build the layer with B·A beside it."""
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
        """Return A (r, n) and B (m, r) at the start.

        Raises:
            UsageError: PiSSA with a rank that exceeds the smaller side.
        """
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
        return peft_format.lora(tensors, lambda rank: rank if config.scaling == "none" else config.alpha, rslora=stable)

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Value]:
        """Return the options that a LoRA adapter of peft stands for."""
        return peft_start.read_options(folder)
