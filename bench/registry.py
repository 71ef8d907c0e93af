"""Names of methods, tasks and backbones, and where they live. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import cache
from typing import Any, Literal

from bench.errors import UsageError, did_you_mean

Kind = Literal["methods", "tasks", "backbones"]

BUILTIN: dict[Kind, dict[str, str]] = {
    "methods": {
        "full": "methods.full:Full",
        "linear": "methods.linear:Linear",
        "lora": "methods.lora:LoRA",
        "deeplora": "methods.deeplora:DeepLoRA",
    },
    "tasks": {
        "glue": "tasks.glue:GLUE",
    },
    "backbones": {
        "minilm": "bench.backbones.minilm:MiniLM",
        "hf": "bench.backbones.huggingface:HuggingFace",
    },
}


@cache
def entries(kind: Kind) -> dict[str, str]:
    """Name → `module:Class`: the built-in ones, then those of installed packages (`lowrank_bench.<kind>`)."""
    found = dict(BUILTIN[kind])
    for point in importlib.metadata.entry_points(group=f"lowrank_bench.{kind}"):
        found.setdefault(point.name, point.value)
    return found


def where(kind: Kind, name: str) -> str:
    """`module:Class` of a name.

    Raises:
        UsageError: the name is not known; the error lists those that are and the nearest.
    """
    known = entries(kind)
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(
            f"unknown {kind[:-1]} '{name}'",
            f"known {kind}: {', '.join(sorted(known))}",
            f"{hint} `bench list {kind}` describes them.".strip(),
        )
    return known[name]


def load(kind: Kind, name: str) -> Any:
    """The class itself; imports its module."""
    module, _, attribute = where(kind, name).partition(":")
    return getattr(importlib.import_module(module), attribute)
