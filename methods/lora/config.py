"""LoRA: adds a product of two thin matrices to frozen weights; with rsLoRA, DoRA, PiSSA and LoRA+ as options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.api.lowrank.config import UpdateConfig
from bench.config.options import option


@dataclass(frozen=True, kw_only=True)
class LoRAConfig(UpdateConfig):
    """Adds s·B·A with s = α/r to every target layer W (m, n), which stays frozen.

    A (r, n) starts Kaiming-uniform with a = √5 and B (m, r) at zero, so training starts at the backbone's function.
    A convolution counts as the matrix (out, in·k·k) on its patches, n = in·k·k: A is a convolution (r, in, k, k) like
    it, B one of 1×1.
    rsLoRA, `scaling=rank-stabilized`: s = α/√r (Kalajdzievski 2023, arXiv 2312.03732).
    PiSSA, `init=pissa`: with W ≈ U_r·S_r·V_rᵀ, B₀ = U_r·√(S_r/s), A₀ = √(S_r/s)·V_rᵀ and the frozen residual
    W − s·B₀·A₀ (Meng et al. 2024, arXiv 2404.02948, section 3). ΔW = s·(B·A − B₀·A₀) has rank up to 2r.
    DoRA, `dora=true`: W' = g ⊙ V by rows with V = W + s·B·A and g = μ/‖V‖. μ (m,) starts at ‖W‖, and the norm is a
    constant in the backward pass (Liu et al. 2024, arXiv 2402.09353, eq. 5 and section 4.3). ΔW = W' − W has any rank.
    LoRA+, `lr_ratio`: B learns at that multiple of the learning rate (Hayou et al. 2024, arXiv 2402.12354).
    Trains: A, B and the head; with DoRA also μ.
    Parameters: Σ over target layers r·(m + n), with DoRA + m, plus head.
    Source: Hu et al. 2021, arXiv 2106.09685. Defaults: the paper's setting for RoBERTa.
    """

    rank: int = option(8, "r, the inner width of B·A.", at_least=1, scales_parameters=True)
    alpha: float = option(16.0, "Numerator of the scale α/r.", above=0)
    init: Literal["kaiming", "normal", "pissa"] = option(
        "kaiming",
        "Start of A: kaiming as in the LoRA paper, or normal, N(0, 1), as in the Deep LoRA paper's baseline; pissa "
        "starts A and B from the weight's r principal singular directions.",
    )
    scaling: Literal["standard", "rank-stabilized", "none"] = option(
        "standard",
        "Scale s of B·A: standard is α/r, rank-stabilized is rsLoRA's α/√r, none is 1, the Deep LoRA paper's baseline.",
    )
    dora: bool = option(
        False, "Train the length of every row of the weight apart from its direction, which B·A changes."
    )
    lr_ratio: float = option(1.0, "Learning rate of B relative to that of A; LoRA+ recommends more than 1.", above=0)
    start: str | None = option(
        None, "Folder of a LoRA adapter of peft to start from; it decides rank, alpha, target, scaling and dora."
    )

    def scale(self, rank: int) -> float:
        """Return s, the factor on B·A, for a layer of this rank."""
        return {"standard": self.alpha / rank, "rank-stabilized": self.alpha / math.sqrt(rank)}.get(self.scaling, 1.0)
