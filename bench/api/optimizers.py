"""Optimisers by name, and how much they remember."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from bench.core.errors import UsageError

Name = Literal["adamw", "adam", "sgd", "momentum", "muon"]


def make(
    name: Name,
    groups: Sequence[dict[str, Any]],
    *,
    lr: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    apart: Collection[Tensor] = (),
) -> Optimizer:
    """An optimiser over parameter groups, which may have a learning rate of their own.

    Weight decay is decoupled from the gradient in adamw and muon, and an L2 term of the loss in the others.

    Args:
        name: sgd has no momentum, momentum is SGD with Polyak's.
        groups: as torch takes them; they are left as they are.
        lr: of groups without one.
        eps: Adam's ε, also of what muon leaves to AdamW.
        weight_decay: of every parameter.
        momentum: of momentum and muon.
        apart: matrices that muon leaves to AdamW, such as embeddings and the head.

    Raises:
        UsageError: muon, where this torch has none or there is no matrix.
    """
    groups = [dict(group) for group in groups]
    match name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, eps=eps, weight_decay=weight_decay)
        case "adam":
            return torch.optim.Adam(groups, lr=lr, eps=eps, weight_decay=weight_decay)
        case "muon":
            matrix: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
            return Muon(groups, matrix=matrix, rest={"lr": lr, "weight_decay": weight_decay, "eps": eps}, apart=apart)
        case "sgd" | "momentum":
            velocity = momentum if name == "momentum" else 0.0
            return torch.optim.SGD(groups, lr=lr, momentum=velocity, weight_decay=weight_decay)


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of the tensors an optimiser keeps from step to step; 0 before its first one."""
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.numel() * value.element_size() for value in kept if isinstance(value, Tensor))


class Muon(Optimizer):
    """torch's Muon on matrices, AdamW on all other parameters, seen from outside as one optimiser.

    Muon steps along the orthogonalised momentum (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). Its
    steps are scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv 2502.16982, eq. 4), so that one learning
    rate serves both. Each given group becomes two, one of them possibly absent.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        matrix: dict[str, Any],
        rest: dict[str, Any],
        apart: Collection[Tensor] = (),
    ) -> None:
        """Share the parameters out.

        Args:
            groups: as torch takes them.
            matrix: options of `torch.optim.Muon`.
            rest: options of `torch.optim.AdamW`.
            apart: matrices that go to AdamW.

        Raises:
            UsageError: this torch has no Muon, or there is no matrix for it.
        """
        plain = {id(p) for p in apart}
        for_muon = _only(groups, lambda p: p.ndim == 2 and id(p) not in plain)
        for_adamw = _only(groups, lambda p: p.ndim != 2 or id(p) in plain)
        self._parts: list[Optimizer] = [_muon(for_muon, matrix)]
        if for_adamw:
            self._parts.append(torch.optim.AdamW(for_adamw, **rest))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; `closure` computes the loss and its gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimiser's own groups and state: schedules and checkpoints see these alone."""
        first = len(self._parts[0].param_groups)
        self._parts[0].param_groups = self.param_groups[:first]
        for part in self._parts[1:]:
            part.param_groups = self.param_groups[first:]
        for part in self._parts:
            part.state = self.state


def _only(groups: Sequence[dict[str, Any]], wanted: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
    """The groups with the wanted parameters alone, without those that are left empty."""
    cut = [{**group, "params": [p for p in group["params"] if wanted(p)]} for group in groups]
    return [group for group in cut if group["params"]]


def _muon(groups: list[dict[str, Any]], options: dict[str, Any]) -> Optimizer:
    kind = getattr(torch.optim, "Muon", None)
    if kind is None:
        raise UsageError(
            "optim.name=muon: this torch has no Muon",
            f"torch {torch.__version__} is installed, Muon came with 2.9",
            "Update torch, or take optim.name=adamw.",
        )
    if not groups:
        raise UsageError(
            "optim.name=muon has no matrix to work on",
            "all that trains are vectors and convolutions, which it leaves to AdamW",
            "Take optim.name=adamw.",
        )
    return kind(groups, adjust_lr_fn="match_rms_adamw", **options)
