"""GaLore: full training with Adam's moments in a low-rank subspace of the gradient."""

from __future__ import annotations

from dataclasses import dataclass

from bench.config.options import option
from methods.common.config import ProjectedConfig


@dataclass(frozen=True, kw_only=True)
class GaLoreConfig(ProjectedConfig):
    """Updates W ← W − η·α·Pᵀ·N, where N is Adam's direction for the projected gradient P·G.

    P (r, d) holds the top r singular vectors of the gradient G (m, n) on its shorter side, d = min(m, n), and is
    computed anew every `refresh` steps. A convolution's weight counts as (m, n·k·k). Biases, norms, embeddings, the
    head, and matrices with d ≤ r get plain AdamW. The optimiser keeps r·d + 2·r·max(m, n) numbers per matrix, AdamW
    2·m·n.
    Trains: everything.
    Parameters: all of backbone and head.
    Source: Zhao et al. 2024, arXiv 2403.03507, algorithm 2. Defaults: the paper's refresh and scale.
    """

    scale: float = option(0.25, "α, the learning rate of projected matrices relative to that of everything else.")
