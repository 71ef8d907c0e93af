"""LoRA: a frozen weight plus the product of two thin matrices; rsLoRA, DoRA, PiSSA and LoRA+ are options of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.api.method import Batch, Peft
from bench.api.peft import PeftFolder
from bench.config.sections import MethodConfig
from methods.common import peft as peft_format
from methods.common.lowrank import Base, FactoredLinear, LowRank, matrix
from methods.lora import peft as peft_start
from methods.lora.config import LoRAConfig
from methods.lora.layer import STARTS, LoRALinear, principal


class LoRA(LowRank):
    """Adds s·B·A to frozen layers; equations and variants are in `LoRAConfig`."""

    Config: ClassVar[type[MethodConfig]] = LoRAConfig

    config: LoRAConfig

    def prepare(
        self,
        found: Sequence[tuple[str, Base]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        """Read the adapter to start from, if there is one."""
        start = self.config.start
        self._start = peft_start.start(Path(start), found, self.config.scale) if start else {}

    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """The layer with B·A beside it."""
        assert rank is not None
        factors, magnitude = self._start.get(name, ([], None))
        scale = self.config.scale(len(factors[0]) if factors else rank)
        pissa, dora, dropout = self.config.init == "pissa" and not factors, self.config.dora, self.config.dropout
        if not factors:
            factors = principal(name, base, rank, scale) if pissa else self._factors(base, rank, generator)
        if not (pissa or dora):
            return FactoredLinear(base, factors, scale=scale, dropout=dropout)
        made = LoRALinear(base, factors, scale=scale, dropout=dropout, offset=pissa, dora=dora)
        if made.magnitude is not None and magnitude is not None:
            made.magnitude.data.copy_(magnitude.flatten())  # peft's of a convolution is (1, m, 1, 1)
        return made

    def param_groups(self) -> list[dict[str, Any]]:
        """B at `lr_ratio` times the learning rate, the rest at the learning rate."""
        if self.config.lr_ratio == 1:
            return super().param_groups()
        b = [layer.factors[1] for _, layer in self.layers()]
        fast = {id(p) for p in b}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in fast]
        return [{"params": rest}, {"params": b, "lr_scale": self.config.lr_ratio}]

    def export(self) -> dict[str, Tensor]:
        """What was trained, and PiSSA's A₀ and B₀, without which ΔW and the residual are not known."""
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
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Peft:
        """Peft's LoRA or DoRA: the same A and B; of PiSSA with −B₀ and A₀ beside them, on the pretrained weight."""
        stable = config.scaling == "rank-stabilized"
        return peft_format.lora(tensors, lambda rank: rank if config.scaling == "none" else config.alpha, rslora=stable)

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Any]:
        """The options that a LoRA adapter of peft stands for."""
        return peft_start.options(folder)
