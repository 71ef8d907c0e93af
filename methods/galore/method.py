"""GaLore: full training with Adam's moments in the gradient's own low-rank subspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.optim import Optimizer

from methods.common.projected import Projected, ProjectedConfig
from methods.common.projected_adam import GaLoreAdamW


class GaLore(Projected):
    """W ← W − η·α·Pᵀ·N, N being Adam's direction for P·G (Zhao et al. 2024, arXiv 2403.03507, algorithm 2).

    P (r, d) holds the top r singular vectors of the gradient G (m, n) on its shorter side, d = min(m, n), taken anew
    every `refresh` steps. A convolution's weight counts as (m, n·k·k). Biases, norms, embeddings, the head, and
    matrices with d ≤ r get plain AdamW.
    Trains: everything. Parameters: all of backbone and head. The optimiser keeps r·d + 2·r·max(m, n) numbers of a
    matrix, AdamW 2·m·n.
    """

    learning_rate: ClassVar[float] = 4e-4
    learning_rates: ClassVar[tuple[float, ...]] = (4e-4, 2e-3, 1e-2)
    scratch_learning_rate: ClassVar[float] = 1e-2

    @dataclass(frozen=True, kw_only=True)
    class Config(ProjectedConfig):
        """The paper's refresh and scale."""

        scale: float = 0.25
        """α, the learning rate of projected matrices relative to that of all else."""

    config: Config

    def make_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """AdamW in the gradients' subspaces."""
        config, optim = self.config, self.optim
        return GaLoreAdamW(
            groups,
            lr=self.lr,
            refresh=config.refresh,
            scale=config.scale,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
        )
