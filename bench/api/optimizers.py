"""Optimisers by name, groups of parameters with learning rates of their own, and the memory optimisers take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

from bench.config.sections import OptimConfig
from bench.core.errors import UsageError

ParamGroup = dict[str, Any]
"""Parameters and options of a group, as torch's optimisers take it."""


def build_optimizer(
    config: OptimConfig, groups: Sequence[ParamGroup], *, lr: float, not_muon: Collection[Tensor] = ()
) -> Optimizer:
    """Build the optimiser that `config` names over parameter groups; `lr` is for those without one of their own.

    sgd has no momentum; momentum is SGD with Polyak's. Weight decay is decoupled from the gradient in adamw and muon,
    and an L2 term of the loss in the others. muon leaves the matrices `not_muon`, such as embeddings, to AdamW.

    Raises:
        UsageError: muon without a matrix, or with a torch that has none.
    """
    groups = [dict(group) for group in groups]  # torch adds its defaults to what it is given
    decay = config.weight_decay
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, eps=config.eps, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(groups, lr=lr, eps=config.eps, weight_decay=decay)
        case "muon":
            return Muon(config, groups, lr=lr, not_muon=not_muon)
        case "sgd" | "momentum":
            momentum = config.momentum if config.name == "momentum" else 0.0
            return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=decay)


def split_groups(module: nn.Module, parameters: Sequence[nn.Parameter], lr_scale: float) -> list[ParamGroup]:
    """Return the other trained parameters of a module, and `parameters`, if any, at `lr_scale` times their rate."""
    chosen = {id(p) for p in parameters}
    rest: ParamGroup = {"params": [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]}
    return [rest, {"params": [*parameters], "lr_scale": lr_scale}] if parameters else [rest]


def state_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of the tensors an optimiser keeps from step to step; 0 before its first step."""
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


class Muon(Optimizer):
    """torch's Muon on matrices and AdamW on all other parameters, as one optimiser.

    Muon steps along the orthogonalised momentum (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). Its
    steps are scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that one learning
    rate serves both. Each given group becomes two, or one where it holds only one kind.
    """

    def __init__(
        self, config: OptimConfig, groups: Sequence[ParamGroup], *, lr: float, not_muon: Collection[Tensor]
    ) -> None:
        if (muon := getattr(torch.optim, "Muon", None)) is None:
            raise UsageError(
                "optim.name=muon needs a newer torch",
                f"torch {torch.__version__} is installed; Muon came with 2.9",
                "Update torch, or use optim.name=adamw.",
            )
        plain = {id(p) for p in not_muon}
        matrices = _select(groups, lambda p: p.ndim == 2 and id(p) not in plain)
        others = _select(groups, lambda p: p.ndim != 2 or id(p) in plain)
        if not matrices:
            raise UsageError(
                "optim.name=muon finds no matrix to train",
                "only vectors and convolutions train here, which it leaves to AdamW",
                "Use optim.name=adamw.",
            )
        decay, momentum = config.weight_decay, config.momentum
        self._parts: list[Optimizer] = [
            muon(matrices, lr=lr, weight_decay=decay, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        ]
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, eps=config.eps, weight_decay=decay))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Step both; `closure` computes the loss and its gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Give the parts this optimiser's groups and state, since schedules and checkpoints see only these."""
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = list(islice(groups, len(part.param_groups)))
            part.state = self.state


def _select(groups: Sequence[ParamGroup], wanted: Callable[[Tensor], bool]) -> list[ParamGroup]:
    """Return the groups with the wanted parameters alone, without groups that are left empty."""
    selected = [{**group, "params": [p for p in group["params"] if wanted(p)]} for group in groups]
    return [group for group in selected if group["params"]]
