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
FLOOR = 1e-10
"""Singular values below this share of the largest are left out of a picture: they are rounding errors."""


def over_training(histories: Sequence[SpectrumHistory], layer: str, what: str) -> list[Panel]:
    """Draw the singular values of one layer, and the effective rank of every layer, of a matrix such as `ΔW`."""
    chosen = next(history for history in histories if history.layer == layer)
    values, steps = chosen.values, chosen.steps.tolist()
    shown = np.where(values > FLOOR * values.max(initial=0.0, where=np.isfinite(values)), values, np.nan)
    drawn = _drawn_indices(values.shape[1] if len(steps) else 0)
    lines = [Series(name=f"σ{i + 1}", x=steps, y=shown[:, i].tolist()) for i in drawn]
    title = f"Singular values of {what}, {layer}"
    first = Panel(title=title, x="optimiser step", y=f"singular value of {what}", y_axis="log", content=lines)
    ranks = {h.layer: dict(zip(h.steps.tolist(), h.effective_ranks(), strict=True)) for h in histories}
    return [first, _rank_over_steps(ranks, what)]


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


def _drawn_indices(count: int) -> list[int]:
    """Choose at most `MAX_LINES` of 0 … count − 1: the first ones, then ever farther apart, and the last."""
    if count <= MAX_LINES:
        return list(range(count))
    return sorted({round(count ** (i / (MAX_LINES - 1))) - 1 for i in range(MAX_LINES)} | {count - 1})
