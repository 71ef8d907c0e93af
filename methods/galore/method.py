"""GaLore: full training with Adam's moments in a low-rank subspace of the gradient."""

from __future__ import annotations

from typing import ClassVar

from torch.optim import Optimizer

from bench.api.optimizers import ParamGroup
from bench.config.sections import MethodConfig
from methods.common.projected import GaLoreAdamW, Projected
from methods.galore.config import GaLoreConfig


class GaLore(Projected):
    """Trains everything with `GaLoreAdamW`; equations are in `GaLoreConfig`."""

    Config: ClassVar[type[MethodConfig]] = GaLoreConfig

    config: GaLoreConfig

    def make_optimizer(self, groups: list[ParamGroup]) -> Optimizer:
        config, optim = self.config, self.optim
        return GaLoreAdamW(
            groups,
            lr=self.lr,
            refresh=config.refresh,
            scale=config.scale,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
        )
