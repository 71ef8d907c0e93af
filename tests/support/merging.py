"""ΔW added to the weights: the plain network that must compute what the adapted one does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api.lowrank.base import LowRank
from bench.api.lowrank.targets import replace_layer


@torch.no_grad()
def merge(method: Any) -> dict[str, Tensor]:
    """Add ΔW of every layer to its weight and take the adapter away; return the weights by name of their layer.

    A tuner of peft is merged by peft.
    """
    layers = {name: layer.base for name, layer in method.layers()}
    if isinstance(method, LowRank):
        for name, delta in [*method.deltas()]:
            layers[name].weight += delta.dense().view_as(layers[name].weight)
            replace_layer(method.backbone, name, layers[name])
    else:
        method.backbone.model.base_model.merge_adapter()
    return {name: base.weight.detach() for name, base in layers.items() if hasattr(base, "weight")}
