"""Costs and ranks of two sides: means, ratios, and ranks layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from bench.records.record import DoneRecord
from leaderboard.tables.build import Quantity, RankField, mean_layers, mean_over_runs, mean_rank
from leaderboard.tables.table import Layer

Runs = Mapping[str, list[DoneRecord]]
"""The finished runs of a side, by task."""

_SIZES: dict[str, tuple[str, Quantity]] = {
    "trained parameters": ("count", lambda r: r.params.trainable),
    "stored": ("bytes", lambda r: r.params.stored_bytes),
    "training time": ("s", lambda r: r.cost.train_s),
    "peak memory": ("bytes", lambda r: r.cost.peak_memory_bytes),
    "steps": ("count", lambda r: r.cost.steps),
    "samples": ("count", lambda r: r.cost.samples),
}
_RANKS: dict[str, tuple[str, RankField]] = {
    "effective rank of ΔW": ("rank", "effective"),
    "stable rank of ΔW": ("rank", "stable"),
    "‖ΔW‖₂": ("norm", "norm"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A quantity of both sides: the mean over runs, then over the tasks for which both sides know it.

    Attributes:
        unit: `count`, `bytes`, `s`, `rank` or `norm`.
        ratio: b/a; None if one is unknown or a is zero.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    ratio: float | None
    note: str = ""

    @property
    def of_update(self) -> bool:
        """Whether it is a property of ΔW, not a cost."""
        return self.unit in ("rank", "norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPair:
    """The rank of one layer's ΔW on each side, mean over runs; None if it has none."""

    layer: str
    a: Layer | None
    b: Layer | None


def ratios(a: Runs, b: Runs) -> tuple[Ratio, ...]:
    """Ratios of `b` to `a`, both on the same tasks, or on tasks that have nothing in common."""
    quantities, notes = dict(_SIZES), dict.fromkeys(_SIZES, "")
    devices_a, devices_b = (
        sorted({f"{run.cost.devices} × {run.cost.device}" for run in _all(runs)}) for runs in (a, b)
    )
    if devices_a != devices_b:
        note = f"devices differ: A {', '.join(devices_a) or '–'}; B {', '.join(devices_b) or '–'}"
        notes |= {"training time": note, "peak memory": note}
    elif any(name.endswith(" cpu") for name in devices_a):
        notes["peak memory"] = "on a CPU, of the whole process, including earlier runs in it"
    layers_a, layers_b = ({rank.layer for run in _all(runs) for rank in run.ranks} for runs in (a, b))
    common = layers_a & layers_b
    for name, (unit, field) in _RANKS.items() if layers_a or layers_b else ():
        quantities[name] = unit, mean_rank(field, common or layers_a | layers_b)
        notes[name] = "" if common else "no layer that both adapt"
        if common and layers_a != layers_b:
            notes[name] = f"over the {len(common)} layers that both adapt (A {len(layers_a)}, B {len(layers_b)})"
    no_task = "" if a.keys() & b.keys() else "no common task"
    return tuple(_ratio(name, unit, a, b, value, no_task, notes[name]) for name, (unit, value) in quantities.items())


def layer_pairs(a: Runs, b: Runs) -> tuple[LayerPair, ...]:
    """Adapted layers in the order of the side that adapts more of them, then those that only the other side adapts."""
    layers_a, layers_b = ({layer.name: layer for layer in mean_layers(_all(runs))} for runs in (a, b))
    names = [*layers_b, *layers_a] if len(layers_b) > len(layers_a) else [*layers_a, *layers_b]
    return tuple(LayerPair(layer=name, a=layers_a.get(name), b=layers_b.get(name)) for name in dict.fromkeys(names))


def _ratio(name: str, unit: str, a: Runs, b: Runs, quantity: Quantity, *notes: str) -> Ratio:
    """Means over runs, then over tasks, so that a task with more seeds does not weigh more."""
    known_a, known_b = (
        {task: mean for task in runs if (mean := mean_over_runs(runs[task], quantity)) is not None} for runs in (a, b)
    )
    shared = known_a.keys() & known_b.keys()
    mean_a, mean_b = (fmean(known[task] for task in shared or known) if known else None for known in (known_a, known_b))
    ratio = mean_b / mean_a if mean_a and mean_b is not None else math.nan
    note = "; ".join(filter(None, notes))
    return Ratio(name=name, unit=unit, a=mean_a, b=mean_b, ratio=ratio if math.isfinite(ratio) else None, note=note)


def _all(runs: Runs) -> Iterable[DoneRecord]:
    return chain.from_iterable(runs.values())
