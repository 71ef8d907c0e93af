"""The picture of `bench compare`: singular values of ΔW after the last step, ranks over training and over depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from bench.core.errors import BenchError, UsageError
from bench.figures import Figure, Panel, Series
from bench.figures.style import plain
from bench.records.record import Record, folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.spectra.files.history import SpectrumHistory
    from leaderboard.compare.comparison import Comparison
    from leaderboard.compare.ratios import LayerPair
    from leaderboard.compare.sides import Side

LAYERS = 12
"""So many layers at most have a panel for their singular values, evenly spread over depth."""
FLOOR = 1e-9
"""Singular values below this share of the largest are rounding and are not drawn."""


def figure(found: Comparison, sides: tuple[Side, Side], runs: Path) -> tuple[Figure, list[str]]:
    """What is drawn, and what a reader should know of what is not.

    Args:
        found: what `compare` found.
        sides: A and B.
        runs: folder of the records, where `spectra.npz` lies beside them.

    Raises:
        UsageError: neither side has a ΔW.
    """
    if not found.layers:
        raise UsageError(
            "nothing to draw: neither A nor B has ranks of a ΔW",
            f"methods: {', '.join(plain(m, 40) for m in (*found.a.methods, *found.b.methods))}",
            "Leave --figure out; scores and costs are compared without it.",
        )
    names = _names(found)
    common = {one.task for one in found.scores if one.a and one.b} or {one.task for one in found.scores}
    done = [[r for r in side.records if r.state == "done" and r.spec.task in common] for side in sides]
    notes: list[str] = []
    stored = [_stored(own, runs, name, notes) for own, name in zip(done, "AB", strict=True)]
    both = [pair.layer for pair in found.layers if all(pair.layer in one for one in stored)]
    chosen = [both[i] for i in _spread(len(both))]
    courses = [_measured(one, both) for one in stored] if both else [_summed_up(own) for own in done]
    panels = [
        *_course(courses, names),
        *_over_depth(found.layers, names),
        *(_end(layer, [_mean([one.values[-1] for one in side[layer]]) for side in stored], names) for layer in chosen),
    ]
    if not both:
        notes.append("no layer has stored singular values on both sides; ranks are drawn from the records")
    a, b = (f"{side.name}: {plain(side.label, 80)}, {len(own)} runs" for side, own in zip(sides, done, strict=True))
    caption = f"{a}. {b}. Lines are means over runs, of the tasks that both have. Over training: mean over "
    if both:
        layers = "layer" if len(both) == 1 else "layers"
        caption += f"the {len(both)} {layers} whose singular values both stored"
        caption += f"; {len(chosen)} of them are shown at the end." if len(chosen) < len(both) else "."
    else:
        caption += "the layers that each run followed, which may be others in A and in B."
    return Figure(title=f"{names[1]} held against {names[0]}", panels=panels, caption=caption), notes


def _names(found: Comparison) -> tuple[str, str]:
    one, two = (f"{side.name}: {plain(side.label, 40)}" for side in (found.a, found.b))
    return one, two


def _course(courses: Sequence[Mapping[int, float]], names: tuple[str, str]) -> list[Panel]:
    content = [
        Series(name=name, x=[*course], y=[*course.values()])
        for name, course in zip(names, courses, strict=True)
        if course
    ]
    title = "Effective rank over training"
    made = Panel(title=title, x="optimiser step", y="mean effective rank of ΔW", content=content, y_axis="log")
    return [made] if content else []


def _measured(stored: Mapping[str, Sequence[SpectrumHistory]], layers: Sequence[str]) -> dict[int, float]:
    """Step → effective rank, mean over `layers` and runs; where ΔW is 0, as at the start of most, it has none."""
    import numpy as np

    found: defaultdict[int, list[float]] = defaultdict(list)
    for one in (one for layer in layers for one in stored[layer]):
        for step, values in zip(one.steps.tolist(), one.values, strict=True):
            if np.isfinite(values).all() and values.max(initial=0.0) > 0:
                share = values[values > 0] / values[values > 0].sum()
                found[step].append(float(np.exp(-np.sum(share * np.log(share)))))
    return {step: fmean(found[step]) for step in sorted(found)}


def _summed_up(done: Sequence[Record]) -> dict[int, float]:
    """The same as records have it: over the layers that each run followed."""
    found: defaultdict[int, list[float]] = defaultdict(list)
    for run in done:
        for one in run.spectra.series if run.spectra else ():
            for step, rank in zip(one.steps, one.effective, strict=False) if one.of == "updates" else ():
                if rank:
                    found[step].append(rank)
    return {step: fmean(found[step]) for step in sorted(found)}


def _over_depth(layers: Sequence[LayerPair], names: tuple[str, str]) -> list[Panel]:
    panels: list[Panel] = []
    for field, label in (("effective", "effective rank of ΔW"), ("norm", "‖ΔW‖₂")):
        content = [
            Series(
                name=name,
                x=[plain(pair.layer) for pair in layers],  # a layer that one side lacks keeps its place
                y=[getattr(one, field) if (one := getattr(pair, side)) else nan for pair in layers],
                form="points",
            )
            for side, name in zip("ab", names, strict=True)
            if any(getattr(pair, side) for pair in layers)
        ]
        title = f"{label[0].upper()}{label[1:]} by layer"
        panels.append(Panel(title=title, x="layer", y=label, content=content, y_axis="log"))
    return panels


def _end(layer: str, values: Sequence[NDArray[np.float64]], names: tuple[str, str]) -> Panel:
    content: list[Series] = []
    for name, one in zip(names, values, strict=True):
        kept = one[one > FLOOR * one.max(initial=0.0)].tolist()
        content.append(Series(name=name, x=[*range(1, len(kept) + 1)], y=kept))
    lengths = [len(one.y) for one in content]
    apart = max(lengths) > 4 * max(1, min(lengths))
    return Panel(
        title=f"Singular values, {plain(layer, 60)}",
        x="index of the singular value",
        y="σ of ΔW",
        content=[one for one in content if len(one.y)],
        x_axis="log" if apart else "linear",
        y_axis="log",
    )


def _stored(done: Sequence[Record], runs: Path, name: str, notes: list[str]) -> dict[str, list[SpectrumHistory]]:
    """Per layer the spectra of ΔW of the runs that stored them and came to an end that is finite."""
    import numpy as np

    from bench.spectra.files.history import FILE, read

    found: defaultdict[str, list[SpectrumHistory]] = defaultdict(list)
    missing = 0
    for run in done:
        path = folder(runs, run.run_id) / FILE
        if not path.is_file():
            missing += bool(run.ranks)
            continue
        try:
            stored = read(path)
        except BenchError as problem:
            notes.append(" ".join(str(problem).split()))
            continue
        for one in stored.spectra:
            if one.of == "updates" and len(one.steps) and one.values.shape[1] and np.isfinite(one.values[-1]).all():
                found[one.layer].append(one)
    if missing:
        notes.append(f"{missing} of {len(done)} runs of {name} have no {FILE} beside their record")
    return dict(found)


def _mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of spectra of different lengths, descending: what a run has no more of is 0."""
    import numpy as np

    padded = np.zeros((len(values), max(map(len, values))))
    for row, one in zip(padded, values, strict=True):
        row[: len(one)] = np.sort(one)[::-1]
    return padded.mean(axis=0)


def _spread(count: int) -> list[int]:
    """At most `LAYERS` of 0 … count − 1, evenly, the first and the last among them."""
    if count <= LAYERS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (LAYERS - 1)) for i in range(LAYERS)})
