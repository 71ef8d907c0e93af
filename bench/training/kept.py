"""What of its weights a run keeps in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.backbones import runs
from bench.records.record import ADAPTER

if TYPE_CHECKING:
    from bench.api.method import Method


def kept(method: type[Method], save: object) -> tuple[str, ...]:
    """Return the names that a finished run of `method` leaves in its folder, with the option `runtime.save`."""
    adapter = save == "all" or (save == "adapter" and method.saves_adapter)
    backbone = save in {"never": (), "asked": ("all",), "always": ("adapter", "all")}[method.saves_backbone]
    return (*([ADAPTER] if adapter else []), *([runs.FOLDER] if backbone else []))
