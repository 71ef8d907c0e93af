"""The layers that a method adapts: linear layers and convolutions, by preset or by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import NamedTuple, TypeVar

from torch import nn

from bench.api.lowrank.factored import Base
from bench.core.errors import UsageError

T = TypeVar("T")
FUSED = re.compile(r"\b(W?qkv|c_attn)$")
"""Names in timm and transformers (`c_attn` in GPT-2) of layers that compute queries, keys and values at once."""
QUERY_VALUE = r"\b(query|value|q|v)(_proj|_lin)?$"
ATTENTION = (
    r"(\b(query|key|value|[qkvo])(_proj|_lin)?|\bout_(proj|lin)|attention\.output\.dense|attn\.(qkv|c_attn|(c_)?proj))$"
)
"""Names of self-attention's projections in transformers and timm."""
PRESETS: dict[str, tuple[str, type[nn.Module] | UnionType]] = {
    "qv": (QUERY_VALUE, nn.Linear),
    "attention": (ATTENTION, nn.Linear),
    "all-linear": ("", nn.Linear),
    "convolutions": ("", nn.Conv2d),
    "all": ("", Base),
}
"""Preset → expression and kind of layer."""
ROLES = {
    "query": re.compile(rf"\b(query|q)(_proj|_lin)?$|{FUSED.pattern}"),
    "value": re.compile(rf"\b(value|v)(_proj|_lin)?$|{FUSED.pattern}"),
    "key": re.compile(rf"\b(key|k)(_proj|_lin)?$|{FUSED.pattern}"),
    "output": re.compile(r"(\bout_(proj|lin)|\bo(_proj)?|attention\.output\.dense|attn\.(c_)?proj)$"),
}
"""What a projection of attention computes → its names; a fused one computes three."""
PRESET_ROLES = {"qv": ("query", "value"), "attention": ("query", "key", "value", "output")}


class Targets(NamedTuple):
    """Layers by name, in the order of the network, and notes on how they were chosen."""

    layers: list[tuple[str, Base]]
    notes: list[str]


def find_targets(network: nn.Module, target: str) -> Targets:
    """Find the layers that `target` names. An expression finds linear layers and convolutions alike.

    Embeddings, pooler and head are never among them. A network without attention has no queries and values: there `qv`,
    the default, means all layers, and a note says so. `qv` means a fused projection as a whole where it was not split.
    Where a preset finds more projections of one kind than of another, a note counts them. Convolutions whose weight is
    not the matrix of one linear map of patches are left as they are, with a note.

    Raises:
        UsageError: the expression is invalid, or no layer matches it; the error lists some names.
    """
    expression, kind = PRESETS.get(target, (target, Base))
    wanted = compile_target(expression)
    named = [(n, m) for n, m in network.named_modules() if "pooler" not in n]
    layers = [(n, m) for n, m in named if isinstance(m, nn.Linear | nn.Conv2d)]
    notes: list[str] = []
    matching = [(n, m) for n, m in layers if isinstance(m, kind) and wanted.search(n)]
    if target == "qv" and not matching and not any("Attention" in type(m).__name__ for _, m in named):
        matching = layers
        notes.append(f"no query and value projections in this network: its {_counts(layers)} are adapted")
    if target == "qv" and (fused := [(n, m) for n, m in layers if isinstance(m, nn.Linear) and FUSED.search(n)]):
        matching = [(n, m) for n, m in layers if (n, m) in (*matching, *fused)]
        notes.append(note_on_fused(len(fused)))
    adaptable = [(n, m) for n, m in matching if _is_plain(m)]
    if not adaptable:
        raise _no_match(target, kind, layers)
    skipped = [m for _, m in matching if isinstance(m, nn.Conv2d) and not _is_plain(m)]
    return Targets(adaptable, notes + _notes_on_roles(target, adaptable) + _notes_on_skipped(skipped))


def note_on_fused(layers: int) -> str:
    """Return the note that so many fused projections are adapted whole."""
    return f"query, key and value are one layer in this network, adapted whole: {layers}"


def compile_target(expression: str) -> re.Pattern[str]:
    """Compile the expression of `method.target`.

    Raises:
        UsageError: it is invalid.
    """
    try:
        return re.compile(expression)
    except re.error as error:
        message = f"method.target='{expression}' is not a regular expression"
        raise UsageError(message, str(error), "Fix the expression.") from error


def match_names(target: str, named: Sequence[tuple[str, T]], kind: str, known: str) -> list[tuple[str, T]]:
    """Return those whose name `target` finds: `all`, or a regular expression.

    Raises:
        UsageError: the expression is invalid, or finds no `kind`; the error lists the names after `known`.
    """
    wanted = compile_target("" if target == "all" else target)
    chosen = [(name, value) for name, value in named if wanted.search(name)]
    if not chosen:
        raise UsageError(
            f"method.target='{target}' matches no {kind}",
            f"{known} {list_names(name for name, _ in named)}",
            "Use all, or a regular expression that matches some of these.",
        )
    return chosen


def list_names(names: Iterable[str]) -> str:
    """List names of layers with # for their numbers, each once, for messages."""
    return ", ".join(sorted({re.sub(r"\d+", "#", name) for name in names})) or "none"


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` in the place of the module `name` of the network."""
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, layer)


def _is_plain(layer: Base) -> bool:
    """Tell whether the weight is one matrix, on the input or on patches of it as torch cuts them."""
    return isinstance(layer, nn.Linear) or (layer.groups == 1 and type(layer).forward is nn.Conv2d.forward)


def _counts(layers: Sequence[tuple[str, Base]]) -> str:
    """Count the layers that can be adapted: `20 convolutions and 1 linear layer`."""
    plain = [layer for _, layer in layers if _is_plain(layer)]
    linear = sum(isinstance(layer, nn.Linear) for layer in plain)
    kinds = {"convolution": len(plain) - linear, "linear layer": linear}
    return " and ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in kinds.items() if n)


def _notes_on_roles(target: str, layers: Sequence[tuple[str, Base]]) -> list[str]:
    """Count the projections of each kind, if a preset does not find equally many: `8 query, 0 value`."""
    counts = {role: sum(bool(ROLES[role].search(name)) for name, _ in layers) for role in PRESET_ROLES.get(target, ())}
    if len({*counts.values()}) < 2 or not any(counts.values()):
        return []
    found = ", ".join(f"{count} {role}" for role, count in counts.items())
    return [f"method.target={target} does not find all it names in this network: {found} projections"]


def _notes_on_skipped(convolutions: Sequence[nn.Conv2d]) -> list[str]:
    changed = [type(layer).__name__ for layer in convolutions if layer.groups == 1]
    grouped, kinds = len(convolutions) - len(changed), ", ".join(sorted({*changed}))
    notes = {
        f"convolutions not adapted because a grouped one is not one matrix: {grouped}": grouped,
        f"convolutions not adapted because their class changes the convolution ({kinds}): {len(changed)}": len(changed),
    }
    return [note for note, count in notes.items() if count]


def _no_match(target: str, kind: type[nn.Module] | UnionType, layers: Sequence[tuple[str, Base]]) -> UsageError:
    linear = [name for name, layer in layers if isinstance(layer, nn.Linear)]
    convolutions = [name for name, layer in layers if isinstance(layer, nn.Conv2d)]
    wanted = "convolution" if kind is nn.Conv2d else "linear layer"
    wanted += " or convolution" if kind is Base and convolutions else ""
    known = f"its linear layers: {list_names(linear)}"
    return UsageError(
        f"method.target='{target}' matches no {wanted} of this backbone",
        known + (f"\nits convolutions: {list_names(convolutions)}" if convolutions else ""),
        f"Use {', '.join(PRESETS)}, or a regular expression that matches some of these.",
    )
