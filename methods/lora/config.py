"""LoRA: a frozen weight plus the product of two thin matrices; rsLoRA, DoRA, PiSSA and LoRA+ are options of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from bench.config.options import option
from methods.common.config import UpdateConfig


@dataclass(frozen=True, kw_only=True)
class LoRAConfig(UpdateConfig):
    """W + s·B·A with s = α/r (Hu et al. 2021, arXiv 2106.09685).

    A (r, n) starts Kaiming-uniform with a=√5, B (m, r) at zero, so the network starts where the backbone is. Options:
    rsLoRA, `scaling=rank-stabilized`: s = α/√r (Kalajdzievski 2023, arXiv 2312.03732).
    PiSSA, `init=pissa`: with W ≈ U_r·S_r·V_rᵀ, B₀ = U_r·√(S_r/s), A₀ = √(S_r/s)·V_rᵀ and the frozen residual
    W − s·B₀·A₀ (Meng et al. 2024, arXiv 2404.02948, section 3); ΔW = s·(B·A − B₀·A₀), of rank up to 2r.
    DoRA, `dora=true`: W' = g ⊙ V by rows, V = W + s·B·A, g = μ/‖V‖, where μ (m,) starts at ‖W‖ and the norm is constant
    in the backward pass (Liu et al. 2024, arXiv 2402.09353, eq. 5 and section 4.3); ΔW = W' − W, of any rank.
    A convolution is the matrix (out, in·k·k) on its patches, n = in·k·k: A (r, in, k, k) is one like it, B one of 1×1.
    LoRA+, `lr_ratio`: B learns at that multiple of the learning rate (Hayou et al. 2024, arXiv 2402.12354).
    Trains: A, B, with DoRA μ, and the head. Parameters: Σ over target layers r·(m + n), with DoRA + m, plus head.

    Options: defaults of the paper's RoBERTa setting.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    rank: int = option(8, "r, the inner width of BA.", at_least=1)
    alpha: float = option(16.0, "Numerator of the scale α/r.", above=0)
    init: Literal["kaiming", "normal", "pissa"] = option(
        "kaiming",
        "Start of A: kaiming as in the LoRA paper, N(0, 1) as the Deep LoRA paper's baseline, or with B, "
        "pissa, the weight's r principal singular directions.",
    )
    scaling: Literal["standard", "rank-stabilized", "none"] = option(
        "standard",
        "Scale of BA: standard is α/r, rank-stabilized rsLoRA's α/√r, none 1, as the Deep LoRA paper's baseline.",
    )
    dora: bool = option(
        False,
        "Train the length of every row of the weight apart from its direction, which BA changes.",
    )
    lr_ratio: float = option(1.0, "Learning rate of B relative to A's; LoRA+ recommends more than 1.", above=0)
    start: str | None = option(
        None,
        "Folder of a LoRA adapter of peft to start from, which then decides rank, alpha, target, scaling and dora.",
    )

    def scale(self, rank: int) -> float:
        """Factor on BA of a layer of that rank."""
        return {"standard": self.alpha / rank, "rank-stabilized": self.alpha / math.sqrt(rank)}.get(self.scaling, 1.0)
