"""GaLore: full training with Adam's moments in the gradient's own low-rank subspace."""

from __future__ import annotations

from typing import Any, ClassVar

from torch.optim import Optimizer

from bench.config.sections import MethodConfig
from methods.common.projected import Projected
from methods.common.projected_adam import GaLoreAdamW
from methods.galore.config import GaLoreConfig


class GaLore(Projected):
    """Trains everything with `GaLoreAdamW`; equations are in `GaLoreConfig`."""

    Config: ClassVar[type[MethodConfig]] = GaLoreConfig

    config: GaLoreConfig

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
