"""Full training whose optimiser keeps the moments of most matrices in a few dimensions: base of GaLore and APOLLO."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.api.method import Batch
from bench.api.optimizers import ParamGroup
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import matricize
from methods.common.config import ProjectedConfig
from methods.full.method import Full

GROWTH = 1.01
"""γ: largest growth of an update's norm from one step to the next (APOLLO; the limiter is Fira's, arXiv 2410.01623)."""
State = dict[str, Any]
"""What the optimiser keeps of one parameter."""
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
"""Layers whose weights count as matrices (m, n), a convolution's as (m, n·k·k). An embedding is a table instead."""


class Projected(Full):
    """Trains everything, with the matrices of the backbone in an optimiser group that has a `rank`."""

    Config: ClassVar[type[MethodConfig]] = ProjectedConfig

    def adapt(self, batch: Batch) -> None:
        """Keep W(0); nothing is inserted or frozen.

        Raises:
            UsageError: no matrix is large enough to be projected, or optim.name names another optimiser.
        """
        if self.optim.name != "adamw":
            raise UsageError(
                f"optim.name={self.optim.name} does not work with {type(self).__name__}",
                "it has its own optimiser, which is AdamW where nothing is projected",
                "Leave optim.name out, or use --method full.",
            )
        super().adapt(batch)
        sides = {name: min(matricize(weight).shape) for name, weight in self._matrices()}
        self._small = [name for name, side in sides.items() if side <= self.config.rank]
        if len(self._small) == len(sides):
            raise UsageError(
                f"method.rank={self.config.rank} projects nothing here",
                f"the longest short side of this backbone's {len(sides)} matrices is {max(sides.values(), default=0)}",
                "Lower method.rank, or use --method full.",
            )

    def param_groups(self) -> list[ParamGroup]:
        """Return the large matrices with their rank, and everything else."""
        large = [weight for _, weight in self._matrices() if min(matricize(weight).shape) > self.config.rank]
        projected = {id(weight) for weight in large}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in projected]
        return [{"params": large, "rank": self.config.rank}, *([{"params": rest}] if rest else [])]

    def report(self) -> dict[str, object]:
        large = len(self.param_groups()[0]["params"])
        return {"projected_matrices": large, **({"plain_matrices": self._small} if self._small else {})}

    def _matrices(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the trained weights of the backbone's layers by name, each once, without those tied to an embedding."""
        seen = {id(m.weight) for m in self.backbone.modules() if isinstance(m, nn.Embedding)}
        for name, module in self.backbone.named_modules():
            for key, weight in module.named_parameters(recurse=False) if isinstance(module, LAYERS) else ():
                if weight.ndim > 1 and weight.requires_grad and id(weight) not in seen:
                    seen.add(id(weight))
                    yield f"{name}.{key}", weight


class ProjectedAdamW(Optimizer):
    """Runs Adam on R = P·G (r, D) instead of the gradient G (d, D), d ≤ D; a subclass turns its result into the step.

    Parameters of groups with a key `rank` count as matrices (m, n·k·k), whose shorter side is projected; the others
    get AdamW as in torch. Weight decay is decoupled and comes before the step. P changes every `refresh` steps; the
    moments are kept. All state is tensors and whole numbers, so `state_dict` is complete.
    """

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        *,
        lr: float,
        refresh: int,
        scale: float,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Set defaults for all groups.

        Args:
            groups: as torch takes them; one with a `rank` r, less than either side, has its matrices projected.
            lr: of groups without one.
            refresh: steps between two P.
            scale: α of the method.
            weight_decay: of every parameter.
        """
        defaults: ParamGroup = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "betas": betas}
        super().__init__([dict(group) for group in groups], {**defaults, "refresh": refresh, "scale": scale})

    @abstractmethod
    def basis(self, state: State, g_dD: Tensor, group: ParamGroup, number: int) -> Tensor:
        """Return P (r, d) of this step; `number` is the place of the parameter in this optimiser."""

    @abstractmethod
    def update(self, state: State, g_dD: Tensor, p_rd: Tensor, r_rD: Tensor, n_rD: Tensor, group: ParamGroup) -> Tensor:
        """Return the step (d, D), which −lr will multiply.

        Args:
            state: of the parameter; `step` counts from 1.
            g_dD: the gradient G.
            p_rd: P.
            r_rD: R = P·G.
            n_rD: Adam's direction N for R.
            group: its options.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
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

    def _direction(self, state: State, gradient: Tensor, group: ParamGroup, number: int) -> Tensor:
        """Return what −lr multiplies, in the shape of the gradient."""
        if "rank" not in group:
            state["step"] += 1
            return adam(state, gradient, group)
        matrix = matricize(gradient)
        tall = len(matrix) >= matrix.shape[1]  # the authors project the input side of a square matrix
        g_dD = matrix.mT if tall else matrix
        p_rd = self.basis(state, g_dD, group, number)
        state["step"] += 1
        r_rD = p_rd @ g_dD
        step = self.update(state, g_dD, p_rd, r_rD, adam(state, r_rD, group), group)
        return (step.mT if tall else step).reshape(gradient.shape)


class GaLoreAdamW(ProjectedAdamW):
    """Takes the step α·Pᵀ·N, with the top r left singular vectors of G as P (arXiv 2403.03507, algorithm 2)."""

    def basis(self, state: State, g_dD: Tensor, group: ParamGroup, number: int) -> Tensor:
        """Return P from the state, or a new one at a refresh.

        Singular vectors have no sign of their own, but the moments that continue in the new basis do. Each vector takes
        the sign of the one before it, so that neither rounding nor the library changes the result.
        """
        if state["step"] % group["refresh"] == 0:
            basis = principal(g_dD, group["rank"])
            if "basis" in state:
                basis = torch.where((basis * state["basis"]).sum(1, keepdim=True) < 0, -basis, basis)
            state["basis"] = basis
        return state["basis"]

    def update(self, state: State, g_dD: Tensor, p_rd: Tensor, r_rD: Tensor, n_rD: Tensor, group: ParamGroup) -> Tensor:
        return p_rd.mT @ n_rD * group["scale"]


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
        """Args: `seed` of all projections; `options` are those of `ProjectedAdamW`."""
        super().__init__(groups, **options)
        self.seed, self.scale_type = seed, scale_type

    def basis(self, state: State, g_dD: Tensor, group: ParamGroup, number: int) -> Tensor:
        """Draw P again at every step, so that it takes no memory; it is the same until the next refresh."""
        count = state["step"] // group["refresh"]
        return gaussian(self.seed, number, count, (group["rank"], len(g_dD))).to(g_dD)

    def update(self, state: State, g_dD: Tensor, p_rd: Tensor, r_rD: Tensor, n_rD: Tensor, group: ParamGroup) -> Tensor:
        dims = {"dim": 0} if self.scale_type == "channel" else {}
        scaled = g_dD * (
            torch.linalg.vector_norm(n_rD, **dims) / (torch.linalg.vector_norm(r_rD, **dims) + group["eps"])
        )
        last = state.setdefault("norm", scaled.new_tensor(math.inf))  # the first is not limited
        norm = torch.linalg.vector_norm(scaled) / _correction(state, group)
        allowed = torch.minimum(norm, GROWTH * last)
        # a layer without a gradient, as behind a scale that starts at 0, would otherwise be limited to 0 for ever
        state["norm"] = torch.where(norm > 0, allowed, last)
        return scaled * (allowed / norm).nan_to_num(1.0) * math.sqrt(group["scale"])


def adam(state: State, gradient: Tensor, group: ParamGroup) -> Tensor:
    """Return M̂/(√V̂ + ε), in the shape of the gradient; `state["step"]` is the number of this step, from 1."""
    beta1, beta2 = group["betas"]
    for name in ("exp_avg", "exp_avg_sq"):
        if name not in state:
            state[name] = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
    mean: Tensor = state["exp_avg"].lerp_(gradient, 1 - beta1)
    square: Tensor = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = square.sqrt().div_(math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
    return mean / root / (1 - beta1 ** state["step"])


def _correction(state: State, group: ParamGroup) -> float:
    """Return the factor of Adam's bias correction on M/√V."""
    beta1, beta2 = group["betas"]
    return math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])


def principal(g_dD: Tensor, rank: int) -> Tensor:
    """Return the top `rank` left singular vectors of G as rows (rank, d), from its Gram matrix in float64.

    A gradient that is not finite gives NaN instead of an error, so that the run is reported as diverged.
    """
    gram = g_dD.double() @ g_dD.double().mT
    if not bool(torch.isfinite(gram).all()):
        return g_dD.new_full((rank, len(g_dD)), math.nan)
    return torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1).mT.to(g_dD).contiguous()


def gaussian(seed: int, number: int, count: int, shape: tuple[int, int]) -> Tensor:
    """Draw N(0, 1/r) entries (r, d) from seed, parameter number and count of refreshes, the same on any device."""
    key = np.random.SeedSequence([seed, number, count]).generate_state(1, np.uint64)
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(key[0]))) / math.sqrt(shape[0])
