"""Layers for a tuner of peft by name, and options that peft knows for transformers' own models only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from bench.api.network import Network
from bench.config.options import Value
from bench.core.errors import UsageError
from methods.common.targets import FUSED, PRESETS, find_targets

SECOND_LAYER = "mlp.fc2"
"""timm's name of the second layer of a feed-forward block, whose input IA³ scales."""


class ModelHolder(Network):
    """Holds a network as the attribute `model`, where peft wraps it, if the network itself has no such attribute."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model = network

    def __getattr__(self, name: str) -> Any:
        """Delegate to the network, for example `width`."""
        return super().__getattr__(name) if name in ("model", "_modules") else getattr(self.model, name)

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.model(**inputs)


def find_layers(network: nn.Module, target: str) -> tuple[list[str], list[str]]:
    """Return the names of the layers that `target` means, and notes on them.

    An expression may also name layers without a matrix. For `qv` a fused projection is adapted whole: in the network
    that peft loads an adapter into, it is not split.

    Raises:
        UsageError: the expression is invalid, or nothing matches it.
    """
    if target not in PRESETS:
        leaves = [n for n, m in network.named_modules() if "pooler" not in n and not [*m.children()]]
        try:
            matching = [n for n in leaves if re.search(target, n)]
        except re.error:
            matching = []  # `find_targets` raises the error
        if trainable := [n for n in matching if n and [*network.get_submodule(n).parameters()]]:
            return trainable, []
    fused = [n for n, m in network.named_modules() if isinstance(m, nn.Linear) and FUSED.search(n)]
    if target == "qv" and fused:
        return fused, [f"query, key and value are one layer in this network: its {len(fused)} are adapted whole"]
    targets = find_targets(network, target)
    return [name for name, _ in targets.layers], targets.notes


def check_layers(tuner: str, network: nn.Module, names: Iterable[str]) -> None:
    """Refuse layers on which peft computes wrong results: UsageError for OFT on a convolution."""
    if tuner == "oft" and (convolutions := [n for n in names if isinstance(network.get_submodule(n), nn.Conv2d)]):
        raise UsageError(
            "peft:oft computes another function on convolutions than it merges into them",
            f"its forward pass omits padding and sums overlapping patches; one of the layers is {convolutions[0]}",
            "Use method.target=all-linear if there are linear layers, or peft:boft, peft:hra or lora.",
        )


def network_options(
    tuner: str, network: nn.Module, names: Iterable[str], options: Mapping[str, Value]
) -> dict[str, list[str]]:
    """Return options that peft knows for transformers' own models only: the layers whose input IA³ scales."""
    if tuner != "ia3" or options.get("feedforward_modules") is not None or hasattr(network, "config"):
        return {}
    return {"feedforward_modules": [name for name in names if name.endswith(SECOND_LAYER)]}


def tensor_options(tuner: str, tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the same options from an adapter's tensors: gains (1, n) scale an input, (m, 1) an output."""
    if tuner != "ia3":
        return {}
    rows = [n for n in names if any(f".{n}.ia3_l" in key and t.ndim == 2 and len(t) == 1 for key, t in tensors.items())]
    return {"feedforward_modules": rows}
