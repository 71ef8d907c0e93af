"""What two sides cost and which ranks they used: means, ratios, and the ranks layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from bench.records.record import DoneRecord
from leaderboard.tables.rows import layers, over_layers
from leaderboard.tables.table import Layer

Runs = Mapping[str, list[DoneRecord]]
"""The finished runs of a side, by task."""
_Of = Callable[[DoneRecord], float | None]

_SIZES: dict[str, tuple[str, _Of]] = {
    "trained parameters": ("count", lambda r: r.params.trainable),
    "stored": ("bytes", lambda r: r.params.stored_bytes),
    "training time": ("s", lambda r: r.cost.train_s),
    "peak memory": ("bytes", lambda r: r.cost.peak_memory_bytes),
    "steps": ("count", lambda r: r.cost.steps),
    "samples": ("count", lambda r: r.cost.samples),
}
_Field = Literal["effective", "stable", "norm"]
_RANKS: dict[_Field, str] = {"effective": "effective rank of ΔW", "stable": "stable rank of ΔW", "norm": "‖ΔW‖₂"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A size of both sides: the mean over tasks of the mean over runs, of the tasks where both know it.

    Attributes:
        unit: `count`, `bytes`, `s`, `rank` or `norm`.
        ratio: b/a; None where one is unknown, or a is zero.
        note: what to know before believing it.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    ratio: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPair:
    """The rank of one layer's ΔW on each side, mean over runs; None where it has none."""

    layer: str
    a: Layer | None
    b: Layer | None


def ratios(mine: Runs, theirs: Runs, tasks: Sequence[str]) -> tuple[Ratio, ...]:
    """Sizes, times and ranks of `theirs` over `mine`, on `tasks`; where there are none, over all that each side has."""
    devices = [_devices(runs, tasks) for runs in (mine, theirs)]
    none = "" if tasks else "no common task"
    notes: dict[str, str] = {}
    if devices[0] != devices[1]:
        apart = f"devices differ: A {', '.join(devices[0]) or '–'}; B {', '.join(devices[1]) or '–'}"
        notes = {"training time": apart, "peak memory": apart}
    elif any(name.endswith(" cpu") for name in devices[0]):
        notes["peak memory"] = "on a CPU of the whole process, with what earlier runs left in it"
    found = [
        _ratio(name, unit, _means(mine, theirs, tasks, of), [none, notes.get(name, "")])
        for name, (unit, of) in _SIZES.items()
    ]
    return (*found, *_ranks(mine, theirs, tasks, none))


def layer_pairs(mine: Runs, theirs: Runs, tasks: Sequence[str]) -> tuple[LayerPair, ...]:
    """Every adapted layer in the order of the side that adapts more of them, then those of the other alone."""
    a, b = (
        {one.name: one for one in layers([run.ranks for run in _over(runs, tasks) if run.ranks])}
        for runs in (mine, theirs)
    )
    names = dict.fromkeys([*b, *a] if len(b) > len(a) else [*a, *b])
    return tuple(LayerPair(layer=name, a=a.get(name), b=b.get(name)) for name in names)


def _ranks(mine: Runs, theirs: Runs, tasks: Sequence[str], none: str) -> Iterator[Ratio]:
    a, b = ({one.layer for run in _over(runs, tasks) for one in run.ranks} for runs in (mine, theirs))
    if not a and not b:
        return
    names = (a & b) or (a | b)
    note = "" if a == b else f"over the {len(names)} layers that both adapt (A {len(a)}, B {len(b)})"
    if not a & b:
        note = "no layer that both adapt"
    for field, name in _RANKS.items():
        means = _means(mine, theirs, tasks, _over_layers(field, names))
        yield _ratio(name, "norm" if field == "norm" else "rank", means, [none, note])


def _ratio(name: str, unit: str, means: tuple[float | None, float | None], notes: Sequence[str]) -> Ratio:
    a, b = means
    ratio = b / a if a and b is not None else None
    if ratio is not None and not math.isfinite(ratio):
        ratio = None
    return Ratio(name=name, unit=unit, a=a, b=b, ratio=ratio, note="; ".join(filter(None, notes)))


def _means(mine: Runs, theirs: Runs, tasks: Sequence[str], of: _Of) -> tuple[float | None, float | None]:
    """Over tasks the mean of the mean over runs, so that a side with more seeds of one task does not lean to it."""
    one, two = (
        {task: fmean(known) for task in tasks or runs if (known := [v for r in runs[task] if (v := of(r)) is not None])}
        for runs in (mine, theirs)
    )
    if shared := one.keys() & two.keys():
        return fmean(one[task] for task in shared), fmean(two[task] for task in shared)
    return (fmean(one.values()) if one else None), (fmean(two.values()) if two else None)


def _over_layers(field: _Field, names: Set[str]) -> _Of:
    def mean(run: DoneRecord) -> float | None:
        ranks = [one for one in run.ranks if one.layer in names]
        return over_layers(ranks, field) if ranks else None

    return mean


def _devices(runs: Runs, tasks: Sequence[str]) -> list[str]:
    return sorted({f"{run.cost.devices} × {run.cost.device}" for run in _over(runs, tasks)})


def _over(runs: Runs, tasks: Sequence[str]) -> list[DoneRecord]:
    return [run for task in tasks or runs for run in runs[task]]
