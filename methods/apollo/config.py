"""APOLLO: full training with gradients rescaled by Adam in a random subspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.config.options import option
from methods.common.config import ProjectedConfig


@dataclass(frozen=True, kw_only=True)
class APOLLOConfig(ProjectedConfig):
    """Updates W ← W − η·√α·G·diag(s) with s_j = ‖N_j‖/‖(P·G)_j‖, where N is Adam's direction for P·G.

    P (r, d) is Gaussian of variance 1/r on the shorter side d = min(m, n) of the gradient G (m, n), drawn anew every
    `refresh` steps from seed, matrix and count; j runs over the longer side. The norm of the update grows by at most 1
    % a step. A convolution's weight counts as (m, n·k·k). Biases, norms, embeddings, the head, and matrices with d ≤ r
    get plain AdamW. The optimiser keeps 2·r·max(m, n) + 1 numbers per matrix, AdamW 2·m·n.
    APOLLO-Mini: `rank=1 scale_type=tensor scale=128`.
    Trains: everything.
    Parameters: all of backbone and head.
    Source: Zhu et al. 2024, arXiv 2412.05270, algorithm 1. Defaults: the paper's APOLLO.
    """

    scale: float = option(1.0, "α; the projection makes s about √(r/d) times as large, which α = d/r compensates.")
    scale_type: Literal["channel", "tensor"] = option(
        "channel", "One factor s_j per column, or one for the whole matrix."
    )
