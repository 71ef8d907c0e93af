"""Spectra as panels of figures: over training, and over a network's depth."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from bench.figures import Map, Panel, Series
from bench.spectra.files.history import SpectrumHistory
from bench.spectra.files.layer_metrics import LayerMetrics

MAX_KINDS = 7
"""Most kinds of layers that are drawn as lines over the blocks; more are drawn layer by layer."""
MAX_LINES = 24
"""Most singular values that are drawn; the later ones are spaced ever farther apart."""
MAX_CURVES = 200
"""Most layers whose singular values are on a page."""
POINTS, ENDS = 200, 20
"""Points of a curve, evenly spaced over more values, and how many at each end are all drawn."""
FLOOR = 1e-10
"""Singular values below this share of the largest are left out of a picture: they are rounding errors."""


def over_training(histories: Sequence[SpectrumHistory], layers: Sequence[str], what: str) -> list[Panel]:
    """Draw the singular values of some layers, and the effective rank of every layer, of a matrix such as `ΔW`."""
    by_layer = {history.layer: history for history in histories}
    ranks = {h.layer: dict(zip(h.steps.tolist(), h.effective_ranks(), strict=True)) for h in histories}
    return [*(_values_over_steps(by_layer[layer], what) for layer in layers), _rank_over_steps(ranks, what)]


def over_index(rows: Sequence[LayerMetrics], chosen: Sequence[str], what: str) -> Panel:
    """Draw the singular values of each layer over their index; those of layers that are not `chosen` are hidden.

    A page shows them when their names are pressed, of as many as `MAX_CURVES` layers.
    """
    others = [row for row in rows if row.layer not in chosen and len(row.values)]
    kept = {*chosen, *(row.layer for row in evenly(others, MAX_CURVES - len(chosen)))}
    content: list[Series] = []
    for row in rows:
        if row.layer in kept:
            drawn = [i for i in _points(len(row.values)) if row.values[i] > FLOOR * row.values[0]]
            x, y = [i + 1 for i in drawn], [float(f"{row.values[i]:.6g}") for i in drawn]
            content.append(Series(name=row.layer, x=x, y=y, shown=row.layer in chosen))
    title, x = f"Singular values of {what}", "index of the singular value"
    return Panel(title=title, x=x, y=f"singular value of {what}", y_axis="log", content=content)


def evenly(rows: Sequence[LayerMetrics], most: int) -> Sequence[LayerMetrics]:
    """Choose at most `most` rows, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / max(1, most - 1))] for i in range(most)]


def over_depth(rows: Sequence[LayerMetrics], what: str, numbers: Mapping[str, str]) -> list[Panel]:
    """Draw a panel for each of `numbers` (name of a metric → label): a line for each kind of layer over the blocks.

    Networks without repeated blocks, or with many kinds of layers, are drawn layer by layer.
    """
    good = [row for row in rows if not row.error]
    kinds: dict[str, list[tuple[int, LayerMetrics]]] = {}
    for row in good:
        if place := block(row.layer):
            kinds.setdefault(place[1], []).append((place[0], row))
    repeated = {kind: members for kind, members in kinds.items() if len(members) > 1}
    panels: list[Panel] = []
    for name, label in numbers.items():
        axis = "log" if name == "norm" else "linear"
        if 0 < len(repeated) <= MAX_KINDS and sum(map(len, repeated.values())) > len(good) / 2:
            title, x = "depth", "block"
            content = [
                Series(name=kind, x=[place for place, _ in members], y=[row.numbers[name] for _, row in members])
                for kind, members in repeated.items()
            ]
        else:
            title = x = "layer"
            values = [row.numbers[name] for row in good]
            content = [Series(name=label, x=[row.layer for row in good], y=values, form="points")]
        title, y = f"{label.capitalize()} by {title}", f"{label} of {what}"
        panels.append(Panel(title=title, x=x, y=y, y_axis=axis, content=content))
    return panels


def block(layer: str) -> tuple[int, str] | None:
    """Return the number of a layer's block and its name there; None outside of blocks.

    `encoder.layer.3.attention.query.weight` gives (3, `attention.query`).
    """
    if not (match := re.search(r"\.(\d+)(?:\.|$)", f".{layer}")):
        return None
    before, after = f".{layer}"[: match.start()], f".{layer}"[match.end() :]
    kind = re.sub(r"\.?weight$", "", after) or before.strip(".")
    # a network with encoder and decoder has the same layer names in both
    return int(match[1]), f"decoder {kind}" if "decoder" in before else kind


def _values_over_steps(history: SpectrumHistory, what: str) -> Panel:
    values, steps = history.values, history.steps.tolist()
    shown = np.where(values > FLOOR * values.max(initial=0.0, where=np.isfinite(values)), values, np.nan)
    drawn = _drawn_indices(values.shape[1] if len(steps) else 0)
    lines = [Series(name=f"σ{i + 1}", x=steps, y=shown[:, i].tolist()) for i in drawn]
    title = f"Singular values of {what}, {history.layer}"
    return Panel(title=title, x="optimiser step", y=f"singular value of {what}", y_axis="log", content=lines)


def _rank_over_steps(ranks: Mapping[str, Mapping[int, float]], what: str) -> Panel:
    # at the start every ΔW is 0, and rank 0 would take half of the colour scale
    steps = sorted({step for row in ranks.values() for step, rank in row.items() if rank != 0})
    label = f"effective rank of {what}"
    if len(ranks) > MAX_KINDS:
        z = [[row.get(step, math.nan) for step in steps] for row in ranks.values()]
        content = Map(x=steps, y=[*ranks], z=z, unit=label)
        return Panel(title="Effective rank by layer", x="optimiser step", y="layer", content=content)
    lines = [Series(name=layer, x=[*row], y=[*row.values()]) for layer, row in ranks.items()]
    return Panel(title="Effective rank by layer", x="optimiser step", y=label, content=lines)


def _points(count: int) -> list[int]:
    """Choose the points of a curve of `count` values: `POINTS` evenly spaced ones, and those at both ends."""
    between = {round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)} if count > POINTS else {*range(count)}
    return sorted(between | {*range(min(ENDS, count))} | {*range(max(0, count - ENDS), count)})


def _drawn_indices(count: int) -> list[int]:
    """Choose at most `MAX_LINES` of 0 … count − 1: the first ones, then ever farther apart, and the last."""
    if count <= MAX_LINES:
        return list(range(count))
    return sorted({round(count ** (i / (MAX_LINES - 1))) - 1 for i in range(MAX_LINES)} | {count - 1})
