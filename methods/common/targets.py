"""The layers that a method adapts: linear layers and convolutions, by preset or by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.core.errors import UsageError
from methods.common.factored import Base

QUERY_VALUE = r"\b(query|value|q|v)(_proj|_lin)?$"
ATTENTION = r"(\b(query|key|value|[qkvo])(_proj|_lin)?|\bout_(proj|lin)|attention\.output\.dense|attn\.(qkv|proj))$"
"""Names of self-attention's projections in transformers and timm."""
PRESETS = {"qv": QUERY_VALUE, "attention": ATTENTION, "all-linear": "", "convolutions": "", "all": ""}
"""Preset → expression; `convolutions` means no linear layer, the three of `LINEAR` no convolution."""
LINEAR = ("qv", "attention", "all-linear")
FUSED = re.compile(r"\bW?qkv$")
"""Names in timm and ModernBERT of a layer (3d, n) whose rows are query, key and value, in this order."""


@dataclass(frozen=True)
class Targets:
    """Layers by name, in the order of the network, and notes on how they were chosen."""

    layers: list[tuple[str, Base]]
    notes: list[str]


def find_targets(network: nn.Module, target: str) -> Targets:
    """Find the layers that `target` names. An expression finds linear layers and convolutions alike.

    Embeddings, pooler and head are never among them. A network without attention has no queries and values: there `qv`,
    the default, means all layers, and a note says so. Convolutions whose weight is not the matrix of one linear map of
    patches are left as they are, with a note.

    Raises:
        UsageError: the expression is invalid, or no layer matches it; the error lists some names.
    """
    wanted = compile_target(target, PRESETS)
    named = [(n, m) for n, m in network.named_modules() if "pooler" not in n]
    layers = [(n, m) for n, m in named if isinstance(m, nn.Linear | nn.Conv2d)]
    notes: list[str] = []
    matching = [(n, m) for n, m in layers if _has_kind(target, m) and wanted.search(n)]
    if target == "qv" and not matching and not any("Attention" in type(m).__name__ for _, m in named):
        matching = layers
        notes.append(f"no query and value projections in this network: its {_counts(layers)} are adapted")
    adaptable = [(n, m) for n, m in matching if _is_plain(m)]
    if not adaptable:
        raise _no_match(target, layers)
    return Targets(adaptable, notes + _skipped([m for _, m in matching if isinstance(m, nn.Conv2d)]))


def compile_target(target: str, presets: Mapping[str, str]) -> re.Pattern[str]:
    """`target` is a preset or an expression; raises UsageError for an invalid one."""
    try:
        return re.compile(presets.get(target, target))
    except re.error as error:
        message = f"method.target='{target}' is not a regular expression"
        raise UsageError(message, str(error), "Fix the expression.") from error


def list_names(names: Iterable[str]) -> str:
    """List names of layers with # for their numbers, each once, for messages."""
    return ", ".join(sorted({re.sub(r"\d+", "#", name) for name in names})) or "none"


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, layer)


class SplitLinear(nn.Module):
    """Layers `query`, `key` and `value` (d, n) in place of a fused one (3d, n), so that each can have its own ΔW.

    It computes the same function of the same weights.
    """

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        width, bias = fused.out_features // 3, dict(fused.named_parameters()).get("bias")
        for i, part in enumerate(("query", "key", "value")):
            layer = nn.Linear(fused.in_features, width, bias=bias is not None, device="meta")
            rows = slice(i * width, (i + 1) * width)
            layer.weight = nn.Parameter(fused.weight.detach()[rows].clone())
            if bias is not None:
                layer.bias = nn.Parameter(bias.detach()[rows].clone())
            self.add_module(part, layer)

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, 3d)."""
        return torch.cat([layer(x) for layer in self.children()], dim=-1)


def split_fused(network: nn.Module) -> None:
    """Replace every fused projection of query, key and value by a `SplitLinear`."""
    for name, module in [*network.named_modules()]:
        if isinstance(module, nn.Linear) and FUSED.search(name) and module.out_features % 3 == 0:
            replace_layer(network, name, SplitLinear(module))


def _has_kind(target: str, layer: Base) -> bool:
    if isinstance(layer, nn.Linear):
        return target != "convolutions"
    return target not in LINEAR


def _is_plain(layer: Base) -> bool:
    """Tell whether the weight is one matrix, on the input or on patches of it as torch cuts them."""
    if isinstance(layer, nn.Linear):
        return True
    return layer.groups == 1 and type(layer).forward is nn.Conv2d.forward


def _counts(layers: Sequence[tuple[str, Base]]) -> str:
    """Count the layers that can be adapted: `20 convolutions and 1 linear layer`."""
    plain = [layer for _, layer in layers if _is_plain(layer)]
    linear = sum(isinstance(layer, nn.Linear) for layer in plain)
    kinds = {"convolution": len(plain) - linear, "linear layer": linear}
    return " and ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in kinds.items() if n)


def _skipped(convolutions: Sequence[nn.Conv2d]) -> list[str]:
    """Write notes on convolutions that match but cannot be adapted."""
    left = [layer for layer in convolutions if not _is_plain(layer)]
    grouped = sum(layer.groups > 1 for layer in left)
    kinds = sorted({type(layer).__name__ for layer in left if layer.groups == 1})
    number = len(left) - grouped
    notes = {
        f"convolutions not adapted because a grouped one is not one matrix: {grouped}": grouped,
        f"convolutions not adapted because their class changes the convolution ({', '.join(kinds)}): {number}": number,
    }
    return [text for text, count in notes.items() if count]


def _no_match(target: str, layers: Sequence[tuple[str, Base]]) -> UsageError:
    convolutions = [name for name, layer in layers if isinstance(layer, nn.Conv2d)]
    wanted = "convolution" if target == "convolutions" else "linear layer"
    wanted += " or convolution" * (bool(convolutions) and target not in (*LINEAR, "convolutions"))
    known = [f"its linear layers: {list_names(name for name, layer in layers if isinstance(layer, nn.Linear))}"]
    known += [f"its convolutions: {list_names(convolutions)}"] if convolutions else []
    return UsageError(
        f"method.target='{target}' matches no {wanted} of this backbone",
        "\n".join(known),
        f"Use {', '.join(PRESETS)}, or a regular expression that matches some of these.",
    )
