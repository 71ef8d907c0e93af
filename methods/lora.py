"""LoRA: a frozen weight plus the product of two thin matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.config import in_range
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

        def __post_init__(self) -> None:
            """Check ranges."""
            super().__post_init__()
            in_range("method.rank", self.rank, 1)

    config: Config

    def layer(self, name: str, base: nn.Linear, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """The layer with B·A beside it."""
        assert rank is not None
        scale = self.config.alpha / rank if self.config.scaling == "standard" else 1.0
        return FactoredLinear(base, self._factors(base, rank, generator), scale=scale, dropout=self.config.dropout)

    def _factors(self, base: nn.Linear, rank: int, generator: torch.Generator) -> list[Tensor]:
        if self.config.init == "kaiming":
            # Kaiming-uniform with a=√5: U(−1/√n, 1/√n)
            a = (torch.rand(rank, base.in_features, generator=generator) * 2 - 1) / math.sqrt(base.in_features)
        else:
            a = torch.randn(rank, base.in_features, generator=generator)
        return [a, torch.zeros(base.out_features, rank)]
