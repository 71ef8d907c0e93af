"""LoRA: a frozen weight plus the product of two thin matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.config import in_range
from bench.exchange import PeftFolder
from bench.method import Batch, Peft
from methods import _peft
from methods._lowrank import FactoredLinear, LowRank, LowRankConfig


class LoRA(LowRank):
    """W + (α/r)·B·A (Hu et al. 2021, arXiv 2106.09685).

    A (r, n) starts Kaiming-uniform with a=√5, B (m, r) at zero, so the network starts where the backbone is.
    Trains: A, B and the head. Parameters: Σ over target layers r·(m + n), plus head.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    @dataclass(frozen=True, kw_only=True)
    class Config(LowRankConfig):
        """Defaults of the paper's RoBERTa setting."""

        rank: int = 8
        """r, the inner width of BA."""
        alpha: float = 16.0
        """Numerator of the scale α/r."""
        init: Literal["kaiming", "normal"] = "kaiming"
        """Start of A: kaiming as in the LoRA paper, or N(0, 1) as the Deep LoRA paper's baseline."""
        scaling: Literal["standard", "none"] = "standard"
        """Scale of BA: standard is α/r; none is 1, as the Deep LoRA paper's baseline."""
        start: str | None = None
        """Folder of a LoRA adapter of peft to start from; rank, alpha and target are then the adapter's."""

        def __post_init__(self) -> None:
            """Check ranges."""
            super().__post_init__()
            in_range("method.rank", self.rank, 1)

        def scale(self, rank: int) -> float:
            """Factor on BA of a layer of that rank."""
            return self.alpha / rank if self.scaling == "standard" else 1.0

    config: Config

    def prepare(
        self,
        found: Sequence[tuple[str, nn.Linear]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        """Read the adapter to start from, if there is one."""
        start = self.config.start
        self._start = _peft.start(Path(start), found, self.config.scale) if start else {}

    def layer(self, name: str, base: nn.Linear, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """The layer with B·A beside it."""
        assert rank is not None
        factors = self._start.get(name) or self._factors(base, rank, generator)
        scale = self.config.scale(len(factors[0]))
        return FactoredLinear(base, factors, scale=scale, dropout=self.config.dropout)

    def _factors(self, base: nn.Linear, rank: int, generator: torch.Generator) -> list[Tensor]:
        if self.config.init == "kaiming":
            # Kaiming-uniform with a=√5: U(−1/√n, 1/√n)
            a = (torch.rand(rank, base.in_features, generator=generator) * 2 - 1) / math.sqrt(base.in_features)
        else:
            a = torch.randn(rank, base.in_features, generator=generator)
        return [a, torch.zeros(base.out_features, rank)]

    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Peft:
        """Peft's LoRA, with the same A and B."""
        return _peft.lora(tensors, lambda rank: config.alpha if config.scaling == "standard" else rank)

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Any]:
        """Rank, alpha and target of a LoRA adapter of peft."""
        return _peft.options(folder)
