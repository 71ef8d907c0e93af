"""APOLLO: full training with gradients rescaled by Adam in a random subspace."""

from __future__ import annotations

from typing import ClassVar

from torch.optim import Optimizer

from bench.api.optimizers import ParamGroup
from bench.config.sections import MethodConfig
from methods.apollo.config import APOLLOConfig
from methods.common.projected import APOLLOAdamW, Projected


class APOLLO(Projected):
    """Trains everything with `APOLLOAdamW`; equations are in `APOLLOConfig`."""

    Config: ClassVar[type[MethodConfig]] = APOLLOConfig

    config: APOLLOConfig

    def make_optimizer(self, groups: list[ParamGroup]) -> Optimizer:
        config, optim = self.config, self.optim
        return APOLLOAdamW(
            groups,
            lr=self.lr,
            refresh=config.refresh,
            scale=config.scale,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            seed=self.seed,
            scale_type=config.scale_type,
        )
