"""The layers that a low-rank method adapts: linear layers and convolutions, by preset or by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from bench.core.errors import UsageError
from methods.common.factored import Base

QUERY_VALUE = r"\b(query|value|q|v)(_proj|_lin)?$"
ATTENTION = r"(\b(query|key|value|[qkvo])(_proj|_lin)?|\bout_(proj|lin)|attention\.output\.dense|attn\.(qkv|proj))$"
"""What transformers and timm call the projections of self-attention."""
PRESETS = {"qv": QUERY_VALUE, "attention": ATTENTION, "all-linear": "", "convolutions": "", "all": ""}
"""The expressions they stand for; `convolutions` knows no linear layer, the first three no convolution."""
LINEAR = ("qv", "attention", "all-linear")


@dataclass(frozen=True)
class Choice:
    """Layers by name, in the order of the network, and what a reader must know of how they were chosen."""

    layers: list[tuple[str, Base]]
    notes: list[str]


def targets(backbone: nn.Module, target: str) -> list[tuple[str, Base]]:
    """Layers that `target` names; embeddings, pooler and head are never among them.

    Raises:
        UsageError: the expression is broken, or no layer matches it; the error lists some names.
    """
    return choose(backbone, target).layers


def choose(backbone: nn.Module, target: str) -> Choice:
    """Layers that `target` names. An expression finds linear layers and convolutions alike.

    A network without attention has no queries and values: there `qv`, the default, means all layers, and a note says
    so. Convolutions whose weight is not the matrix of one linear map of patches are left as they are, and said.

    Raises:
        UsageError: the expression is broken, or no layer matches it; the error lists some names.
    """
    try:
        wanted = re.compile(PRESETS.get(target, target))
    except re.error as error:
        raise UsageError(f"method.target='{target}' is no regular expression", str(error), "Mend it.") from error
    named = [(n, m) for n, m in backbone.named_modules() if "pooler" not in n]
    layers = [(n, m) for n, m in named if isinstance(m, nn.Linear | nn.Conv2d)]
    notes: list[str] = []
    matching = [(n, m) for n, m in layers if _meant(target, m) and wanted.search(n)]
    if target == "qv" and not matching and not any("Attention" in type(m).__name__ for _, m in named):
        matching = layers
        notes.append(f"no query and value projections in this network: its {_counts(layers)} are adapted")
    found = [(n, m) for n, m in matching if _plain(m)]
    if not found:
        raise _nothing(target, layers)
    return Choice(found, notes + _left([m for _, m in matching if isinstance(m, nn.Conv2d) and not _plain(m)]))


def _meant(target: str, layer: Base) -> bool:
    """Whether the target speaks of layers of this kind."""
    if isinstance(layer, nn.Linear):
        return target != "convolutions"
    return target not in LINEAR


def _plain(layer: Base) -> bool:
    """Whether its weight is one matrix, on its input or on patches of it as torch cuts them."""
    if isinstance(layer, nn.Linear):
        return True
    return layer.groups == 1 and type(layer).forward is nn.Conv2d.forward


def _counts(layers: Sequence[tuple[str, Base]]) -> str:
    """Such as `20 convolutions and 1 linear layer`: those that can be adapted."""
    plain = [layer for _, layer in layers if _plain(layer)]
    linear = sum(isinstance(layer, nn.Linear) for layer in plain)
    kinds = {"convolution": len(plain) - linear, "linear layer": linear}
    return " and ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in kinds.items() if n)


def _left(convolutions: Sequence[nn.Conv2d]) -> list[str]:
    """What is said of convolutions that were meant and cannot be adapted."""
    grouped = sum(layer.groups > 1 for layer in convolutions)
    others = sorted({type(layer).__name__ for layer in convolutions if layer.groups == 1})
    number = len(convolutions) - grouped
    said = {
        f"convolutions not adapted because they are grouped, which is no one matrix: {grouped}": grouped,
        f"convolutions not adapted because they are no plain ones ({', '.join(others)}): {number}": number,
    }
    return [text for text, n in said.items() if n]


def _nothing(target: str, layers: Sequence[tuple[str, Base]]) -> UsageError:
    convolutions = sorted({re.sub(r"\d+", "#", n) for n, m in layers if isinstance(m, nn.Conv2d)})
    linear = sorted({re.sub(r"\d+", "#", n) for n, m in layers if isinstance(m, nn.Linear)})
    wanted = "convolution" if target == "convolutions" else "linear layer"
    wanted += " or convolution" * (convolutions != [] and target not in (*LINEAR, "convolutions"))
    known = [f"its linear layers: {', '.join(linear) or 'none'}"]
    known += [f"its convolutions: {', '.join(convolutions)}"] if convolutions else []
    return UsageError(
        f"method.target='{target}' matches no {wanted} of this backbone",
        "\n".join(known),
        f"Use {', '.join(PRESETS)}, or a regular expression that matches some of these.",
    )
