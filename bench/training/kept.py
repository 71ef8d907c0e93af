"""What of its weights and outputs a run keeps in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.backbones import runs
from bench.records.predictions import Predictions, fit
from bench.records.record import ADAPTER

if TYPE_CHECKING:
    from bench.api.method import Method
    from bench.records.spec import RunSpec


def kept(method: type[Method], save: object) -> tuple[str, ...]:
    """Return the names that a finished run of `method` leaves in its folder, with the option `runtime.save`."""
    adapter = save == "all" or (save == "adapter" and method.saves_adapter)
    backbone = save in {"never": (), "asked": ("all",), "always": ("adapter", "all")}[method.saves_backbone]
    return (*([ADAPTER] if adapter else []), *([runs.FOLDER] if backbone else []))


def keeps_predictions(spec: RunSpec, method: type[Method], splits: Mapping[str, Predictions]) -> bool:
    """Whether a run keeps its outputs on every evaluated example, from which intervals follow.

    Trials do not, since no table shows them; nor runs that are scored by a metric of their method (mae, mlm), whose
    outputs are not compared with labels; nor those whose outputs are larger than would be read, or have an axis more
    than the task's (dropout with a probe gives the outputs of two heads).
    """
    of_task = not method.primary and all(one.outputs.ndim < 3 for one in splits.values())
    return spec.options.runtime.save != "none" and not spec.holdout and of_task and fit(splits)
