"""The picture of `bench compare`: singular values of ΔW after the last step, ranks over training and over depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from math import nan
from pathlib import Path
from statistics import fmean

import numpy as np

from bench.core.errors import BenchError, UsageError
from bench.figures import Figure, Panel, Series
from bench.figures.style import plain
from bench.records.record import Record, folder
from bench.spectra.files.history import FILE, SpectrumHistory, read_run
from leaderboard.compare.comparison import Comparison
from leaderboard.compare.ratios import LayerPair
from leaderboard.compare.selection import Side
from leaderboard.render.json_export import subsample
from leaderboard.tables.grouping import group_by

LAYERS = 12
"""Maximum number of layers with a panel for their singular values, evenly spread over depth."""
FLOOR = 1e-9
"""Singular values below this share of the largest are rounding and are not drawn."""


def figure(comparison: Comparison, sides: tuple[Side, Side], runs: Path) -> tuple[Figure, list[str]]:
    """Draw A and B, and note what is not drawn; `spectra.npz` lies beside the records in `runs`.

    Raises:
        UsageError: neither side has a ΔW.
    """
    if not comparison.layers:
        methods = (*comparison.a.methods, *comparison.b.methods)
        raise UsageError(
            "nothing to draw: neither A nor B has ranks of a ΔW",
            f"methods: {', '.join(plain(method, 40) for method in methods)}",
            "Leave --figure out; scores and costs are compared without it.",
        )
    names = [f"{side.name}: {plain(side.label, 40)}" for side in sides]
    scores = comparison.scores
    tasks = {score.task for score in scores if score.a and score.b} or {score.task for score in scores}
    done = [[run for run in side.records if run.state == "done" and run.spec.task in tasks] for side in sides]
    notes: list[str] = []
    stored = [_stored(done_runs, runs, side.name, notes) for done_runs, side in zip(done, sides, strict=True)]
    both = [pair.layer for pair in comparison.layers if all(pair.layer in spectra for spectra in stored)]
    shown = subsample(both, LAYERS)
    if both:
        ranks = [_stored_ranks([spectrum for layer in both for spectrum in spectra[layer]]) for spectra in stored]
        layers = "layer" if len(both) == 1 else "layers"
        what = f"the {len(both)} {layers} whose singular values both stored"
        what += f"; {len(shown)} of them are shown at the end." if len(shown) < len(both) else "."
    else:
        ranks = [*map(_recorded_ranks, done)]
        notes.append("no layer has stored singular values on both sides; ranks are drawn from the records")
        what = "the layers that each run followed, which may be others in A and in B."
    a, b = (f"{side.name}: {plain(side.label, 80)}, {len(group)} runs" for side, group in zip(sides, done, strict=True))
    caption = f"{a}. {b}. Lines are means over runs, of the tasks that both have. Over training: mean over {what}"
    if comparison.rank_caution:
        caption += f" Caution: {plain(comparison.rank_caution)}."
    panels = [
        *_over_training(ranks, names),
        *_over_depth(comparison.layers, names),
        *(_at_end(layer, [spectra[layer] for spectra in stored], names) for layer in shown),
    ]
    return Figure(title=f"{names[1]} compared with {names[0]}", panels=panels, caption=caption), notes


def _stored(done: Sequence[Record], runs: Path, name: str, notes: list[str]) -> dict[str, list[SpectrumHistory]]:
    """The stored spectra of ΔW by layer, of runs whose last singular values are finite."""
    spectra: list[SpectrumHistory] = []
    missing = 0
    for run in done:
        try:
            stored = read_run(run, folder(runs, run.run_id))
        except BenchError as problem:
            notes.append(" ".join(str(problem).split()))
            continue
        if stored is None:
            missing += bool(run.ranks)
        else:
            spectra += stored.layers("updates").values()
    if missing:
        notes.append(f"{missing} of {len(done)} runs of {name} have no {FILE} beside their record")
    finite = (spectrum for spectrum in spectra if spectrum.values.size and np.isfinite(spectrum.values[-1]).all())
    return group_by(finite, lambda spectrum: spectrum.layer)


def _stored_ranks(spectra: Iterable[SpectrumHistory]) -> Iterator[tuple[int, float]]:
    """Step and effective rank of each spectrum; where ΔW is 0, as at the start of most, it has none."""
    for spectrum in spectra:
        pairs = zip(spectrum.steps.tolist(), spectrum.effective_ranks(), strict=True)
        yield from ((step, rank) for step, rank in pairs if rank > 0)


def _recorded_ranks(done: Sequence[Record]) -> Iterator[tuple[int, float]]:
    """Step and effective rank, the mean over the layers that a run followed."""
    for run in done:
        for series in run.spectra.series if run.spectra else ():
            if series.of == "updates":
                pairs = zip(series.steps, series.effective, strict=False)
                yield from ((step, rank) for step, rank in pairs if rank)


def _over_training(ranks: Sequence[Iterable[tuple[int, float]]], names: Sequence[str]) -> list[Panel]:
    content: list[Series] = []
    for name, of_side in zip(names, ranks, strict=True):
        by_step = group_by(of_side, lambda pair: pair[0])
        steps = sorted(by_step)
        if steps:
            content.append(Series(name=name, x=steps, y=[fmean(rank for _, rank in by_step[step]) for step in steps]))
    title, y = "Effective rank over training", "mean effective rank of ΔW"
    return [Panel(title=title, x="optimiser step", y=y, content=content, y_axis="log")] if content else []


def _over_depth(layers: Sequence[LayerPair], names: Sequence[str]) -> list[Panel]:
    panels: list[Panel] = []
    x = [plain(pair.layer) for pair in layers]
    for field, title, label in (
        ("effective", "Effective rank of ΔW by layer", "effective rank of ΔW"),
        ("norm", "‖ΔW‖₂ by layer", "‖ΔW‖₂"),
    ):
        content: list[Series] = []
        for name, of_side in zip(names, ([pair.a for pair in layers], [pair.b for pair in layers]), strict=True):
            y = [getattr(layer, field) if layer else nan for layer in of_side]  # a layer that it lacks keeps its place
            content += [Series(name=name, x=x, y=y, form="points")] if any(of_side) else []
        panels.append(Panel(title=title, x="layer", y=label, content=content, y_axis="log"))
    return panels


def _at_end(layer: str, spectra: Sequence[Sequence[SpectrumHistory]], names: Sequence[str]) -> Panel:
    content: list[Series] = []
    for name, of_side in zip(names, spectra, strict=True):
        # what a shorter spectrum has no more of is 0
        columns = zip_longest(*(spectrum.values[-1].tolist() for spectrum in of_side), fillvalue=0.0)
        mean = [fmean(column) for column in columns]
        kept = [value for value in mean if value > FLOOR * max(mean)]
        content.append(Series(name=name, x=[*range(1, len(kept) + 1)], y=kept))
    lengths = [len(series.y) for series in content]
    return Panel(
        title=f"Singular values, {plain(layer, 60)}",
        x="index of the singular value",
        y="σ of ΔW",
        content=[series for series in content if len(series.y)],
        x_axis="log" if max(lengths) > 4 * max(1, min(lengths)) else "linear",
        y_axis="log",
    )
