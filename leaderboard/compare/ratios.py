"""Costs and ranks of two sides: means, ratios, and ranks layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from bench.records.record import DoneRecord
from leaderboard.tables.build import mean_layers, mean_over_layers
from leaderboard.tables.table import Layer

Runs = Mapping[str, list[DoneRecord]]
"""The finished runs of a side, by task."""
Quantity = Callable[[DoneRecord], float | None]

_SIZES: dict[str, tuple[str, Quantity]] = {
    "trained parameters": ("count", lambda r: r.params.trainable),
    "stored": ("bytes", lambda r: r.params.stored_bytes),
    "training time": ("s", lambda r: r.cost.train_s),
    "peak memory": ("bytes", lambda r: r.cost.peak_memory_bytes),
    "steps": ("count", lambda r: r.cost.steps),
    "samples": ("count", lambda r: r.cost.samples),
}
RankField = Literal["effective", "stable", "norm"]
_RANKS: dict[RankField, str] = {"effective": "effective rank of ΔW", "stable": "stable rank of ΔW", "norm": "‖ΔW‖₂"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A quantity of both sides: the mean over runs, then over the tasks for which both sides know it.

    Attributes:
        unit: `count`, `bytes`, `s`, `rank` or `norm`.
        ratio: b/a; None if one is unknown or a is zero.
        note: a caveat.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    ratio: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPair:
    """The rank of one layer's ΔW on each side, mean over runs; None if it has none."""

    layer: str
    a: Layer | None
    b: Layer | None


def ratios(mine: Runs, theirs: Runs, tasks: Sequence[str]) -> tuple[Ratio, ...]:
    """Ratios of `theirs` to `mine` on `tasks`; if there are none, over all tasks of each side."""
    devices = [_devices(runs, tasks) for runs in (mine, theirs)]
    no_task = "" if tasks else "no common task"
    notes: dict[str, str] = {}
    if devices[0] != devices[1]:
        note = f"devices differ: A {', '.join(devices[0]) or '–'}; B {', '.join(devices[1]) or '–'}"
        notes = {"training time": note, "peak memory": note}
    elif any(name.endswith(" cpu") for name in devices[0]):
        notes["peak memory"] = "on a CPU, of the whole process, including earlier runs in it"
    found = [
        _ratio(name, unit, _means(mine, theirs, tasks, quantity), [no_task, notes.get(name, "")])
        for name, (unit, quantity) in _SIZES.items()
    ]
    return (*found, *_ranks(mine, theirs, tasks, no_task))


def layer_pairs(mine: Runs, theirs: Runs, tasks: Sequence[str]) -> tuple[LayerPair, ...]:
    """Adapted layers in the order of the side that adapts more of them, then those that only the other side adapts."""
    a, b = (
        {one.name: one for one in mean_layers([run.ranks for run in _runs_of(runs, tasks) if run.ranks])}
        for runs in (mine, theirs)
    )
    names = dict.fromkeys([*b, *a] if len(b) > len(a) else [*a, *b])
    return tuple(LayerPair(layer=name, a=a.get(name), b=b.get(name)) for name in names)


def _ranks(mine: Runs, theirs: Runs, tasks: Sequence[str], no_task: str) -> Iterator[Ratio]:
    a, b = ({one.layer for run in _runs_of(runs, tasks) for one in run.ranks} for runs in (mine, theirs))
    if not a and not b:
        return
    names = (a & b) or (a | b)
    note = "" if a == b else f"over the {len(names)} layers that both adapt (A {len(a)}, B {len(b)})"
    if not a & b:
        note = "no layer that both adapt"
    for field, name in _RANKS.items():
        means = _means(mine, theirs, tasks, _mean_rank(field, names))
        yield _ratio(name, "norm" if field == "norm" else "rank", means, [no_task, note])


def _ratio(name: str, unit: str, means: tuple[float | None, float | None], notes: Sequence[str]) -> Ratio:
    a, b = means
    ratio = b / a if a and b is not None else None
    if ratio is not None and not math.isfinite(ratio):
        ratio = None
    return Ratio(name=name, unit=unit, a=a, b=b, ratio=ratio, note="; ".join(filter(None, notes)))


def _means(mine: Runs, theirs: Runs, tasks: Sequence[str], quantity: Quantity) -> tuple[float | None, float | None]:
    """Mean over runs, then over tasks, so that a task with more seeds does not weigh more."""
    one, two = (
        {
            task: fmean(known)
            for task in tasks or runs
            if (known := [v for r in runs[task] if (v := quantity(r)) is not None])
        }
        for runs in (mine, theirs)
    )
    if shared := one.keys() & two.keys():
        return fmean(one[task] for task in shared), fmean(two[task] for task in shared)
    return (fmean(one.values()) if one else None), (fmean(two.values()) if two else None)


def _mean_rank(field: RankField, names: Set[str]) -> Quantity:
    def mean(run: DoneRecord) -> float | None:
        ranks = [one for one in run.ranks if one.layer in names]
        return mean_over_layers(ranks, field) if ranks else None

    return mean


def _devices(runs: Runs, tasks: Sequence[str]) -> list[str]:
    return sorted({f"{run.cost.devices} × {run.cost.device}" for run in _runs_of(runs, tasks)})


def _runs_of(runs: Runs, tasks: Sequence[str]) -> list[DoneRecord]:
    return [run for task in tasks or runs for run in runs[task]]
