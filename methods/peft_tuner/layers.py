"""What a tuner of peft gets: the layers by name, and what peft asks for in networks that it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from bench.core.errors import UsageError
from methods.common.fused import FUSED
from methods.common.targets import PRESETS, choose

SECOND = "mlp.fc2"
"""How timm calls the second layer of a feed-forward block, whose input IA³ scales."""


class Held(nn.Module):
    """A network as the attribute `model`, where peft is put around it, for one that does not hold another as such."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.model = network

    def __getattr__(self, name: str) -> Any:
        """What the network says of itself, such as its width, is said here too."""
        return super().__getattr__(name) if name in ("model", "_modules") else getattr(self.model, name)

    def forward(self, **inputs: Tensor) -> Tensor:
        """What the network gives."""
        return self.model(**inputs)


def layers(network: nn.Module, target: str) -> tuple[list[str], list[str]]:
    """Names of the layers that `target` means, and notes; an expression may also name layers that are no matrix.

    A fused projection is adapted as a whole for `qv`: peft would not find the parts in the network it loads into.

    Raises:
        UsageError: the expression is broken, or nothing matches it.
    """
    if target not in PRESETS:
        leaves = [n for n, m in network.named_modules() if "pooler" not in n and not [*m.children()]]
        try:
            matching = [n for n in leaves if re.search(target, n)]
        except re.error:
            matching = []  # `choose` says what is wrong with it
        if found := [n for n in matching if n and [*network.get_submodule(n).parameters()]]:
            return found, []
    fused = [n for n, m in network.named_modules() if isinstance(m, nn.Linear) and FUSED.search(n)]
    if target == "qv" and fused:
        return fused, [f"query, key and value are one layer in this network: its {len(fused)} are adapted whole"]
    choice = choose(network, target)
    return [name for name, _ in choice.layers], choice.notes


def check(tuner: str, network: nn.Module, names: Iterable[str]) -> None:
    """Refuse what peft would compute wrongly.

    Raises:
        UsageError: OFT on a convolution.
    """
    if tuner == "oft" and (found := [n for n in names if isinstance(network.get_submodule(n), nn.Conv2d)]):
        raise UsageError(
            "peft:oft does not compute on convolutions what it merges into them",
            f"its forward pass leaves padding out and adds overlapping patches up; among the layers is {found[0]}",
            "Use method.target=all-linear where there are linear layers, or peft:boft, peft:hra or lora.",
        )


def asked(tuner: str, network: nn.Module, names: Iterable[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that peft itself knows for models of transformers alone: IA³'s layers whose input is scaled."""
    if tuner != "ia3" or options.get("feedforward_modules") is not None or hasattr(network, "config"):
        return {}
    return {"feedforward_modules": [name for name in names if name.endswith(SECOND)]}


def saved(tuner: str, tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Any]:
    """The same from an adapter's tensors: gains (1, n) are those of an input, (m, 1) of an output."""
    if tuner != "ia3":
        return {}
    rows = [n for n in names if any(f".{n}.ia3_l" in key and t.ndim == 2 and len(t) == 1 for key, t in tensors.items())]
    return {"feedforward_modules": rows}
