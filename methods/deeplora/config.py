"""Deep LoRA: adds a product of three or more factors, each started orthogonal, to frozen weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bench.api.lowrank.config import UpdateConfig
from bench.config.options import option
from bench.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DeepLoRAConfig(UpdateConfig):
    """Adds ΔW = W_L·…·W_1, each factor started as an orthogonal matrix times ε, to every target layer W (m, n).

    `form=full`: W_1 (w, n), W_2 … W_{L−1} (w, w), W_L (m, w), with w = rank, or max(m, n) for `rank=none`.
    `form=compressed`: ΔW = Left·W̃_L·…·W̃_1·Rightᵀ with W̃_l = ε·I (r, r) at the start. Left (m, r) and Right (n, r)
    are orthonormal, come from the gradient of one batch in evaluation mode, and learn at γ times the learning rate. A
    convolution counts as the matrix (out, in·k·k), n = in·k·k. The overparametrised product finds updates of low rank
    by itself: compare the effective rank with the nominal one.
    Trains: the factors and the head.
    Parameters: full Σ w·(m + n) + (L−2)·w², compressed Σ r·(m + n) + L·r² (L·r² for γ = 0), plus head.
    Source: Yaras, Wang, Balzano, Qu 2024, arXiv 2406.04112. Defaults: the paper's, except Adam's epsilon and the
    learning rate (see docs/results.md).
    """

    learning_rate: ClassVar[float] = 3e-3
    learning_rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-3, 1e-2)

    rank: int | None = option(
        8,
        "Width w of the factors (full form; none: max(m, n)), or r = 2k of the compressed form.",
        at_least=1,
        scales_parameters=True,
    )
    form: Literal["full", "compressed"] = option(
        "full", "Train full-size factors, or small ones in the subspace in which the full ones move."
    )
    depth: int = option(3, "Number of factors L, at least 2.", at_least=2)
    init_scale: float = option(1e-3, "ε: every factor starts as an orthogonal matrix times ε.", at_least=0)
    gamma: float = option(
        1e-2,
        "Learning rate of Left and Right relative to the inner factors' (compressed form); 0 freezes them.",
        at_least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "compressed" and (self.rank is None or self.rank % 2):
            raise UsageError(
                f"method.rank={self.rank}: the compressed form needs an even rank",
                "r = 2k, k directions of the gradient for either side",
                "Use an even rank, or method.form=full.",
            )
