"""Parameter groups with learning rates of their own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bench.api.optimizers import ParamGroup


def split_groups(module: nn.Module, parameters: Sequence[nn.Parameter], lr_scale: float) -> list[ParamGroup]:
    """Return the other trained parameters of a module, and `parameters`, if any, at `lr_scale` times their rate."""
    chosen = {id(p) for p in parameters}
    rest: ParamGroup = {"params": [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]}
    return [rest, {"params": [*parameters], "lr_scale": lr_scale}] if parameters else [rest]
