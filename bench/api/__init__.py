"""The stable surface for authors of methods: everything that a method of another package imports.

    from bench.api import LowRank, UpdateConfig, option

Names are imported when they are first used, so that a Config costs no import of torch. docs/api.md lists them, and says
what may change between two versions; docs/methods.md leads from an empty file to a row in a table.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api.batching import Batch
    from bench.api.lowrank.base import Layers, LowRank
    from bench.api.lowrank.config import UpdateConfig
    from bench.api.lowrank.factored import Base, FactoredLinear, orthogonal, principal_factors
    from bench.api.lowrank.peft import lora_adapter
    from bench.api.lowrank.targets import find_targets, match_names, replace_layer
    from bench.api.method import Method
    from bench.api.network import Network
    from bench.api.optimizers import ParamGroup, split_groups
    from bench.api.peft import PeftAdapter, PeftFolder
    from bench.api.task import TaskSpec
    from bench.config.options import option
    from bench.config.sections import MethodConfig
    from bench.core.errors import UsageError
    from bench.spectra import Delta, matricize

VERSION = "1.0"
"""Of this surface. The first number rises when a method written for the version before might no longer work, the second
when something is added."""

_HOMES = {
    "bench.api.batching": ("Batch",),
    "bench.api.lowrank.base": ("Layers", "LowRank"),
    "bench.api.lowrank.config": ("UpdateConfig",),
    "bench.api.lowrank.factored": ("Base", "FactoredLinear", "orthogonal", "principal_factors"),
    "bench.api.lowrank.peft": ("lora_adapter",),
    "bench.api.lowrank.targets": ("find_targets", "match_names", "replace_layer"),
    "bench.api.method": ("Method",),
    "bench.api.network": ("Network",),
    "bench.api.optimizers": ("ParamGroup", "split_groups"),
    "bench.api.peft": ("PeftAdapter", "PeftFolder"),
    "bench.api.task": ("TaskSpec",),
    "bench.config.options": ("option",),
    "bench.config.sections": ("MethodConfig",),
    "bench.core.errors": ("UsageError",),
    "bench.spectra": ("Delta", "matricize"),
}
"""Module → the names that it gives to the surface."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "VERSION",
    "Base",
    "Batch",
    "Delta",
    "FactoredLinear",
    "Layers",
    "LowRank",
    "Method",
    "MethodConfig",
    "Network",
    "ParamGroup",
    "PeftAdapter",
    "PeftFolder",
    "TaskSpec",
    "UpdateConfig",
    "UsageError",
    "find_targets",
    "lora_adapter",
    "match_names",
    "matricize",
    "option",
    "orthogonal",
    "principal_factors",
    "replace_layer",
    "split_groups",
]


def __getattr__(name: str) -> Any:
    """Import the module of a name when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bench.api' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)
