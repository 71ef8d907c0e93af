"""What the blocks of a network are run with: torch.compile, and gradient checkpointing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.core.errors import EnvironmentProblem, UsageError

COMPILERS = ("g++", "c++", "clang++", "cl")


def prepare_blocks(
    network: nn.Module, blocks: Sequence[nn.Module], *, compiled: bool, checkpointed: bool, device: str
) -> None:
    """Change how blocks compute their output; parameters, names and hooks stay as they are.

    Blocks are compiled one by one: equal ones share what was compiled, and a method may leave some out.

    Args:
        network: compiled as a whole where it has no blocks.
        blocks: of the network.
        device: type of the device on which it runs.

    Raises:
        UsageError: gradient checkpointing in a network without blocks.
        EnvironmentProblem: there is no C++ compiler, which torch.compile needs on a CPU.
    """
    if checkpointed and not blocks:
        raise UsageError(
            "runtime.gradient_checkpointing: this network has no blocks",
            f"{type(network).__name__} has no stack of transformer or residual blocks",
            "Leave it out.",
        )
    if compiled and device == "cpu" and not any(map(shutil.which, COMPILERS)):
        raise EnvironmentProblem(
            "runtime.compile needs a C++ compiler", f"none of {', '.join(COMPILERS)} is here", "Install one: g++."
        )
    if compiled or checkpointed:
        for block in blocks or [network]:
            block.__class__ = _prepared(type(block), compiled, checkpointed)


@lru_cache
def _prepared(kind: type[nn.Module], compiled: bool, checkpointed: bool) -> type[nn.Module]:
    """Derive a class with another `forward`.

    A class, since `forward` of the instance is where a cache puts what a block returns, and `torch.compile(block)`
    would compile hooks, too, and no longer see those that are added later.
    """
    compute: Any = torch.compile(kind.forward) if compiled else kind.forward

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if checkpointed and self.training and torch.is_grad_enabled():
            return checkpoint(partial(compute, self), *args, use_reentrant=False, **kwargs)
        return compute(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
