"""The picture of `bench compare`: singular values of ΔW after the last step, ranks over training and over depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from bench.errors import BenchError, UsageError
from bench.figures import Figure, Panel, Series
from bench.figures.style import plain
from bench.record import Record, folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from leaderboard.compare import Comparison
    from leaderboard.ratios import LayerPair
    from leaderboard.sides import Side

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
    names = _names(found)
    done = [[run for run in side.records if run["state"] == "done"] for side in sides]
    notes: list[str] = []
    stored = [_singular_values(own, runs, name, notes) for own, name in zip(done, "AB", strict=True)]
    both = [pair.layer for pair in found.layers if all(pair.layer in one for one in stored)]
    chosen = [both[i] for i in _spread(len(both))]
    panels = [
        *_course(done, names),
        *_over_depth(found.layers, names),
        *(_end(layer, [one[layer] for one in stored], names) for layer in chosen),
    ]
    if not panels:
        raise UsageError(
            "nothing to draw: neither A nor B has ranks of a ΔW",
            f"methods: {', '.join(plain(m, 40) for m in (*found.a.methods, *found.b.methods))}",
            "Leave --figure out; scores and costs are compared without it.",
        )
    if found.layers and not both:
        notes.append("no layer has stored singular values on both sides; ranks are drawn from the records")
    a, b = (f"{side.name}: {plain(side.label, 80)}, {len(own)} runs" for side, own in zip(sides, done, strict=True))
    caption = f"{a}. {b}. Lines are means over runs."
    if both:
        caption += f" Singular values after the last step, of {len(chosen)} of the {len(both)} layers that both have."
    return Figure(title=f"{names[1]} held against {names[0]}", panels=panels, caption=caption), notes


def _names(found: Comparison) -> tuple[str, str]:
    one, two = (f"{side.name}: {plain(side.label, 40)}" for side in (found.a, found.b))
    return one, two


def _course(done: Sequence[Sequence[Record]], names: tuple[str, str]) -> list[Panel]:
    """Effective rank over training as records sum it up."""
    content: list[Series] = []
    for own, name in zip(done, names, strict=True):
        steps: defaultdict[int, list[float]] = defaultdict(list)
        for run in own:
            for one in run.get("spectra", {}).get("series", ()):
                for step, rank in zip(one["steps"], one["effective"], strict=False) if one["of"] == "updates" else ():
                    if rank:  # at the start ΔW is 0 and has no rank
                        steps[step].append(rank)
        if steps:
            at = sorted(steps)
            content.append(Series(name=name, x=at, y=[fmean(steps[step]) for step in at]))
    title = "Effective rank over training"
    made = Panel(title=title, x="optimiser step", y="mean effective rank of ΔW", content=content, y_axis="log")
    return [made] if content else []


def _over_depth(layers: Sequence[LayerPair], names: tuple[str, str]) -> list[Panel]:
    if not layers:
        return []
    panels: list[Panel] = []
    for field, label in (("effective", "effective rank of ΔW"), ("norm", "‖ΔW‖₂")):
        content = [
            Series(
                name=name,
                x=[plain(pair.layer) for pair in layers if getattr(pair, side)],
                y=[getattr(one, field) for pair in layers if (one := getattr(pair, side))],
                form="points",
            )
            for side, name in zip("ab", names, strict=True)
        ]
        content = [one for one in content if len(one.y)]
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


def _singular_values(done: Sequence[Record], runs: Path, name: str, notes: list[str]) -> dict[str, NDArray[np.float64]]:
    """Per layer the singular values of ΔW after the last step, descending, mean over the runs that stored them."""
    import numpy as np

    from bench.spectra.store import FILE, read

    found: defaultdict[str, list[NDArray[np.float64]]] = defaultdict(list)
    missing = 0
    for run in done:
        path = folder(runs, run["run_id"]) / FILE
        if not path.is_file():
            missing += bool(run["ranks"])
            continue
        try:
            stored = read(path)
        except BenchError as problem:
            notes.append(" ".join(str(problem).split()))
            continue
        for one in stored.spectra:
            if one.of == "updates" and len(one.steps) and one.values.shape[1] and np.isfinite(one.values[-1]).all():
                found[one.layer].append(np.sort(one.values[-1])[::-1])
    if missing:
        notes.append(f"{missing} of {len(done)} runs of {name} have no {FILE} beside their record")
    return {layer: _mean(values) for layer, values in found.items()}


def _mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of spectra of different lengths: what a run has no more of is 0."""
    import numpy as np

    longest = max(map(len, values))
    return np.mean([np.pad(one, (0, longest - len(one))) for one in values], axis=0)


def _spread(count: int) -> list[int]:
    """At most `LAYERS` of 0 … count − 1, evenly, the first and the last among them."""
    if count <= LAYERS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (LAYERS - 1)) for i in range(LAYERS)})
