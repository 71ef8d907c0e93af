"""Full training whose optimiser keeps the moments of most matrices in a few dimensions: base of GaLore and APOLLO."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.api.method import Batch
from bench.api.optimizers import ParamGroup
from bench.core.errors import UsageError
from bench.spectra import matricize
from methods.full.method import Full

State = dict[str, Any]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
"""Layers whose weights count as matrices (m, n), a convolution's as (m, n·k·k). An embedding is a table instead."""


class Projected(Full):
    """Trains everything, with the matrices of the backbone in an optimiser group that has a `rank`."""

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

    def adam_options(self) -> ParamGroup:
        """Return what `ProjectedAdamW` takes besides the groups."""
        config, optim = self.config, self.optim
        adam: ParamGroup = {"lr": self.lr, "eps": optim.eps, "weight_decay": optim.weight_decay}
        return {**adam, "refresh": config.refresh, "scale": config.scale}

    def report(self) -> dict[str, object]:
        large = len(self.param_groups()[0]["params"])
        small = {"plain_matrices": self._small} if self._small else {}
        return {"projected_matrices": large, **small, **super().report()}

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
        """Set defaults for all groups; matrices of one with a `rank` r, less than either side, are projected.

        `refresh` is the number of steps between two P, and `scale` the method's α.
        """
        defaults: ParamGroup = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "betas": betas}
        super().__init__([dict(group) for group in groups], {**defaults, "refresh": refresh, "scale": scale})

    @abstractmethod
    def direction(self, state: State, g_dD: Tensor, group: ParamGroup, number: int) -> Tensor:
        """Return the step (d, D) for the gradient G, which −lr will multiply.

        `state["step"]` counts the steps before this one; `number` is the place of the parameter in this optimiser.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step; `closure` computes the loss and its gradients first."""
        loss = torch.enable_grad()(closure)() if closure else None
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
            return adam(state, gradient, group)
        matrix = matricize(gradient)
        tall = len(matrix) >= matrix.shape[1]  # the authors project the input side of a square matrix
        g_dD = matrix.mT if tall else matrix
        step = self.direction(state, g_dD, group, number)
        return (step.mT if tall else step).reshape(gradient.shape)


def adam(state: State, gradient: Tensor, group: ParamGroup) -> Tensor:
    """Return M̂/(√V̂ + ε), in the shape of the gradient, and count this step in the state."""
    state["step"] += 1
    beta1, beta2 = group["betas"]
    for name in ("exp_avg", "exp_avg_sq"):
        if name not in state:
            state[name] = torch.zeros_like(gradient, memory_format=torch.contiguous_format)
    mean: Tensor = state["exp_avg"].lerp_(gradient, 1 - beta1)
    square: Tensor = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = square.sqrt().div_(math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
    return mean / root / (1 - beta1 ** state["step"])
