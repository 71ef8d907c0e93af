"""APOLLO: full training by gradients whose columns are as long as Adam, in a random subspace, would make them."""

from __future__ import annotations

from typing import Any, ClassVar

from torch.optim import Optimizer

from bench.config.sections import MethodConfig
from methods.apollo.config import APOLLOConfig
from methods.common.projected import Projected
from methods.common.projected_adam import APOLLOAdamW


class APOLLO(Projected):
    """Trains everything with `APOLLOAdamW`; equations are in `APOLLOConfig`."""

    Config: ClassVar[type[MethodConfig]] = APOLLOConfig

    config: APOLLOConfig

    def make_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """AdamW where it is plain, and scaled gradients."""
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
