"""Options that several methods share, as base classes of their Configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bench.config.options import option
from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig(MethodConfig):
    """Options of every adapter method; the defaults are AdapterHub's for this placement."""

    reduction: float = option(
        16.0,
        "Width of the block's output (an image's channels) over that of the bottleneck, which is rounded, at least 1.",
        at_least=1,
    )
    bottleneck: int | None = option(
        None, "Width b of the bottleneck; none takes it from method.reduction.", at_least=1, scales_parameters=True
    )
    activation: Literal["relu", "gelu", "silu"] = option("relu", "Activation between the two projections.")
    dropout: float = option(0.0, "Dropout rate on what an adapter adds.", at_least=0, at_most=0.999)


@dataclass(frozen=True, kw_only=True)
class ProjectedConfig(MethodConfig):
    """Options of every optimiser that projects gradients."""

    freezes: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 4e-4
    learning_rates: ClassVar[tuple[float, ...]] = (4e-4, 2e-3, 1e-2)
    scratch_learning_rate: ClassVar[float] = 1e-2

    rank: int = option(
        16, "r, dimensions of the subspace; matrices whose shorter side is at most r get plain AdamW.", at_least=1
    )
    refresh: int = option(200, "Steps between two subspaces; the moments are kept.", at_least=1)
