"""APOLLO: full training with gradients rescaled by Adam in a random subspace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.api.optimizers import ParamGroup
from methods.apollo.config import APOLLOConfig
from methods.common.projected import Projected, ProjectedAdamW, State, adam

GROWTH = 1.01
"""γ: largest growth of an update's norm from one step to the next (the limiter is Fira's, arXiv 2410.01623)."""


class APOLLO(Projected):
    """Trains everything with `APOLLOAdamW`; equations are in `APOLLOConfig`."""

    Config = APOLLOConfig

    def make_optimizer(self, groups: list[ParamGroup]) -> ProjectedAdamW:
        return APOLLOAdamW(groups, seed=self.seed, scale_type=self.config.scale_type, **self.adam_options())


class APOLLOAdamW(ProjectedAdamW):
    """Takes the step √α·G·diag(s), with scales s from Adam on P·G for a Gaussian P (arXiv 2412.05270, algorithm 1).

    s_j = ‖N_j‖/‖R_j‖ (channel), or one s = ‖N‖/‖R‖ for all columns (tensor: APOLLO-Mini). The norm of the step may grow
    by γ = 1.01 per step; as in the authors' code the limit is on the norm before Adam's bias correction.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        seed: int,
        scale_type: Literal["channel", "tensor"] = "channel",
        **options: Any,
    ) -> None:
        """Set the seed of all projections; `options` are those of `ProjectedAdamW`."""
        super().__init__(groups, **options)
        self.seed, self.scale_type = seed, scale_type

    def direction(self, state: State, g_dD: Tensor, group: ParamGroup, number: int) -> Tensor:
        """Scale the columns of the gradient.

        P is drawn again at every step, so that it takes no memory; it is the same until the next refresh.
        """
        count = state["step"] // group["refresh"]
        r_rD = gaussian(self.seed, number, count, (group["rank"], len(g_dD))).to(g_dD) @ g_dD
        n_rD = adam(state, r_rD, group)
        dims = {"dim": 0} if self.scale_type == "channel" else {}
        n_norm, r_norm = (torch.linalg.vector_norm(matrix, **dims) for matrix in (n_rD, r_rD))
        scaled = g_dD * (n_norm / (r_norm + group["eps"]))
        last = state.setdefault("norm", scaled.new_tensor(math.inf))  # the first is not limited
        first, second = (1 - beta ** state["step"] for beta in group["betas"])  # Adam's bias corrections
        norm = torch.linalg.vector_norm(scaled) / (math.sqrt(second) / first)
        allowed = torch.minimum(norm, GROWTH * last)
        # a layer without a gradient, as behind a scale that starts at 0, would otherwise be limited to 0 for ever
        state["norm"] = torch.where(norm > 0, allowed, last)
        return scaled * (allowed / norm).nan_to_num(1.0) * math.sqrt(group["scale"])


def gaussian(seed: int, number: int, count: int, shape: tuple[int, int]) -> Tensor:
    """Draw N(0, 1/r) entries (r, d) from seed, parameter number and count of refreshes, the same on any device."""
    key = np.random.SeedSequence([seed, number, count]).generate_state(1, np.uint64)
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(key[0]))) / math.sqrt(shape[0])
