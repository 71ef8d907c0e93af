"""AdamW whose moments of a matrix live in r dimensions of its shorter side: GaLore and APOLLO."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from bench.spectra import matricize

GROWTH = 1.01
"""γ: how much an update's norm may grow from one step to the next (APOLLO; the limiter is Fira's, arXiv 2410.01623)."""
State = dict[str, Any]


class ProjectedAdamW(Optimizer):
    """Adam on R = P·G (r, D) instead of the gradient G (d, D), d ≤ D, and what a subclass makes of it as the step.

    Parameters of groups with a key `rank` are taken as matrices (m, n·k·k) whose shorter side is projected; the others
    get AdamW as torch has it. Weight decay is decoupled and comes before the step. P changes every `refresh` steps, the
    moments stay as they are. All state is tensors and whole numbers, so that `state_dict` has everything.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        lr: float,
        refresh: int,
        scale: float,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Share one set of defaults.

        Args:
            groups: as torch takes them; `rank` r, less than either side, says that its matrices are projected.
            lr: of groups without one.
            refresh: steps between two P.
            scale: α of the method.
            eps: Adam's ε.
            weight_decay: of every parameter.
            betas: decay of the two moments.
        """
        defaults: dict[str, Any] = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "betas": betas}
        super().__init__([dict(group) for group in groups], {**defaults, "refresh": refresh, "scale": scale})

    @abstractmethod
    def basis(self, state: State, g_dD: Tensor, group: dict[str, Any], number: int) -> Tensor:
        """P (r, d) of this step; `number` is the parameter's place in this optimiser."""

    @abstractmethod
    def update(
        self, state: State, g_dD: Tensor, p_rd: Tensor, r_rD: Tensor, n_rD: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """The step (d, D) that is to be multiplied with −lr.

        Args:
            state: of the parameter; `step` counts from 1.
            g_dD: the gradient G.
            p_rd: P.
            r_rD: R = P·G.
            n_rD: Adam's direction N for R.
            group: options.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` computes the loss and its gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        numbered = enumerate((group, parameter) for group in self.param_groups for parameter in group["params"])
        for number, (group, parameter) in numbered:
            if parameter.grad is not None:
                state = self.state[parameter]
                state.setdefault("step", 0)
                direction = self._direction(state, parameter.grad, group, number)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
        return loss

    def _direction(self, state: State, gradient: Tensor, group: dict[str, Any], number: int) -> Tensor:
        """What −lr multiplies, in the gradient's shape."""
        if "rank" not in group:
            state["step"] += 1
            return adam(state, gradient, group)
        matrix = matricize(gradient)
        tall = len(matrix) >= matrix.shape[1]  # of a square one the authors project the inputs' side
        g_dD = matrix.mT if tall else matrix
        p_rd = self.basis(state, g_dD, group, number)
        state["step"] += 1
        r_rD = p_rd @ g_dD
        step = self.update(state, g_dD, p_rd, r_rD, adam(state, r_rD, group), group)
        return (step.mT if tall else step).reshape(gradient.shape)


class GaLoreAdamW(ProjectedAdamW):
    """P is the top r left singular vectors of G at every refresh, the step α·Pᵀ·N (arXiv 2403.03507, algorithm 2)."""

    def basis(self, state: State, g_dD: Tensor, group: dict[str, Any], number: int) -> Tensor:
        """Kept in the state, since a later gradient would give another.

        Singular vectors have no sign of their own, but moments that meet new ones do: each takes the side of the one
        before it, so that neither rounding nor a library decides the course.
        """
        if state["step"] % group["refresh"] == 0:
            found = principal(g_dD, group["rank"])
            if "basis" in state:
                found = torch.where((found * state["basis"]).sum(1, keepdim=True) < 0, -found, found)
            state["basis"] = found
        return state["basis"]

    def update(
        self, state: State, g_dD: Tensor, p_rd: Tensor, r_rD: Tensor, n_rD: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """Back to the full space."""
        return p_rd.mT @ n_rD * group["scale"]


class APOLLOAdamW(ProjectedAdamW):
    """P is Gaussian, and Adam on P·G only says how long the columns of G should be (arXiv 2412.05270, algorithm 1).

    The step is √α·G·diag(s) with s_j = ‖N_j‖/‖R_j‖ (channel), or one s = ‖N‖/‖R‖ for all (tensor: APOLLO-Mini). Its
    norm may grow by γ = 1.01 per step; as in the authors' code the limit is on the norm before Adam's bias correction.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        seed: int,
        scale_type: Literal["channel", "tensor"] = "channel",
        **options: Any,
    ) -> None:
        """Take the seed of all projections, and those options that all share."""
        super().__init__(groups, **options)
        self.seed, self.scale_type = seed, scale_type

    def basis(self, state: State, g_dD: Tensor, group: dict[str, Any], number: int) -> Tensor:
        """Drawn again at every step, so that it takes no memory: the same until the count of refreshes changes."""
        count = state["step"] // group["refresh"]
        return gaussian(self.seed, number, count, (group["rank"], len(g_dD))).to(g_dD)

    def update(
        self, state: State, g_dD: Tensor, p_rd: Tensor, r_rD: Tensor, n_rD: Tensor, group: dict[str, Any]
    ) -> Tensor:
        """The gradient itself, its columns scaled."""
        of = {"dim": 0} if self.scale_type == "channel" else {}
        scaled = g_dD * (torch.linalg.vector_norm(n_rD, **of) / (torch.linalg.vector_norm(r_rD, **of) + group["eps"]))
        last = state.setdefault("norm", scaled.new_tensor(math.inf))  # nothing limits the first
        norm = torch.linalg.vector_norm(scaled) / _correction(state, group)
        allowed = torch.minimum(norm, GROWTH * last)
        # a layer without a gradient, as behind a scale that starts at 0, would else be held at 0 for ever
        state["norm"] = torch.where(norm > 0, allowed, last)
        return scaled * (allowed / norm).nan_to_num(1.0) * math.sqrt(group["scale"])


def adam(state: State, gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """M̂/(√V̂ + ε), in the gradient's shape; `state["step"]` is the number of this step, from 1."""
    beta1, beta2 = group["betas"]
    for name in ("exp_avg", "exp_avg_sq"):
        if name not in state:
            state[name] = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
    mean: Tensor = state["exp_avg"].lerp_(gradient, 1 - beta1)
    square: Tensor = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = square.sqrt().div_(math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
    return mean / root / (1 - beta1 ** state["step"])


def _correction(state: State, group: dict[str, Any]) -> float:
    """What Adam's bias correction multiplies M/√V with."""
    beta1, beta2 = group["betas"]
    return math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])


def principal(g_dD: Tensor, rank: int) -> Tensor:
    """The top `rank` left singular vectors of G as rows (rank, d), from its Gram matrix in float64.

    A gradient that is not finite has none: NaN, with which the run is found to diverge, instead of an error here.
    """
    gram = g_dD.double() @ g_dD.double().mT
    if not bool(torch.isfinite(gram).all()):
        return g_dD.new_full((rank, len(g_dD)), math.nan)
    return torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1).mT.to(g_dD).contiguous()


def gaussian(seed: int, number: int, count: int, shape: tuple[int, int]) -> Tensor:
    """N(0, 1/r) entries (r, d), a function of seed, parameter number and count of refreshes, the same on any device."""
    key = np.random.SeedSequence([seed, number, count]).generate_state(1, np.uint64)
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(key[0]))) / math.sqrt(shape[0])
