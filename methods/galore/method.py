"""GaLore: full training with Adam's moments in a low-rank subspace of the gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.api.optimizers import ParamGroup
from methods.common.projected import Projected, ProjectedAdamW, State, adam
from methods.galore.config import GaLoreConfig


class GaLore(Projected):
    """Trains everything with `GaLoreAdamW`; equations are in `GaLoreConfig`."""

    Config = GaLoreConfig

    def make_optimizer(self, groups: list[ParamGroup]) -> ProjectedAdamW:
        return GaLoreAdamW(groups, **self.adam_options())


class GaLoreAdamW(ProjectedAdamW):
    """Takes the step α·Pᵀ·N, with the top r left singular vectors of G as P (arXiv 2403.03507, algorithm 2)."""

    def direction(self, state: State, g_dD: Tensor, group: ParamGroup, number: int) -> Tensor:
        """Project Adam's direction back to the full space.

        Singular vectors have no sign of their own, but the moments that continue in the new basis do. Each vector takes
        the sign of the one before it, so that neither rounding nor the library changes the result.
        """
        if state["step"] % group["refresh"] == 0:
            basis = principal(g_dD, group["rank"])
            if "basis" in state:
                basis = torch.where((basis * state["basis"]).sum(1, keepdim=True) < 0, -basis, basis)
            state["basis"] = basis
        p_rd: Tensor = state["basis"]
        return p_rd.mT @ adam(state, p_rd @ g_dD, group) * group["scale"]


def principal(g_dD: Tensor, rank: int) -> Tensor:
    """Return the top `rank` left singular vectors of G as rows (rank, d), from its Gram matrix in float64.

    A gradient that is not finite gives NaN instead of an error, so that the run is reported as diverged.
    """
    gram = g_dD.double() @ g_dD.double().mT
    if not bool(torch.isfinite(gram).all()):
        return g_dD.new_full((rank, len(g_dD)), math.nan)
    return torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1).mT.to(g_dD).contiguous()
