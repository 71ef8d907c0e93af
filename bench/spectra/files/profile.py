"""Spectra as figures: over training, and over a network's depth."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch

from bench.figures import Map, Panel, Series
from bench.spectra.files.measured import Row
from bench.spectra.files.store import Spectrum
from bench.spectra.ranks import effective_rank

KINDS = 7
"""So many kinds of layers are drawn as lines over the blocks; with more, layers stand one after the other."""
LINES = 24
"""So many singular values at most are drawn, the later ones ever farther apart."""
FLOOR = 1e-10
"""Singular values below this share of the largest are left out of a picture: they are rounding."""


def over_training(found: Sequence[Spectrum], chosen: str, what: str) -> list[Panel]:
    """Singular values of the layer `chosen`, and the effective rank of every layer.

    Args:
        found: at least one layer.
        chosen: one of their names.
        what: the matrix, such as `ΔW`.
    """
    one = next(spectrum for spectrum in found if spectrum.layer == chosen)
    spectra: list[list[float]] = one.values.tolist()
    top = max((v for row in spectra for v in row if math.isfinite(v)), default=0.0)
    lines = [
        Series(
            name=f"σ{i + 1}",
            x=[int(step) for step in one.steps],
            y=[row[i] if row[i] > FLOOR * top else math.nan for row in spectra],
        )
        for i in _spread(len(spectra[0]) if spectra else 0)
    ]
    title = f"Singular values of {what}, {chosen}"
    first = Panel(title=title, x="optimiser step", y=f"singular value of {what}", y_axis="log", content=lines)
    ranks = {t.layer: dict(zip((int(s) for s in t.steps), _effective(t), strict=True)) for t in found}
    return [first, _rank_over_steps(ranks, what)]


def over_depth(rows: Sequence[Row], what: str, numbers: Mapping[str, str]) -> list[Panel]:
    """A panel for each of `numbers` (name in a row → label): a line for each kind of layer over the blocks.

    Networks without repeated blocks, or of many kinds of layers, are shown layer by layer.
    """
    good = [row for row in rows if not row.error]
    kinds: dict[str, list[tuple[int, Row]]] = {}
    for row in good:
        if place := block(row.layer):
            kinds.setdefault(place[1], []).append((place[0], row))
    repeated = {kind: members for kind, members in kinds.items() if len(members) > 1}
    panels: list[Panel] = []
    for name, label in numbers.items():
        axis = "log" if name == "norm" else "linear"
        if 0 < len(repeated) <= KINDS and sum(map(len, repeated.values())) > len(good) / 2:
            content = [
                Series(name=kind, x=[place for place, _ in members], y=[row.numbers[name] for _, row in members])
                for kind, members in repeated.items()
            ]
            panels.append(
                Panel(
                    title=f"{label.capitalize()} by depth",
                    x="block",
                    y=f"{label} of {what}",
                    y_axis=axis,
                    content=content,
                )
            )
        else:
            one = Series(
                name=label, x=[row.layer for row in good], y=[row.numbers[name] for row in good], form="points"
            )
            panels.append(
                Panel(
                    title=f"{label.capitalize()} by layer",
                    x="layer",
                    y=f"{label} of {what}",
                    y_axis=axis,
                    content=[one],
                )
            )
    return panels


def block(layer: str) -> tuple[int, str] | None:
    """Number of the block that a layer lies in, and the layer's name in it: (3, `attention.query`) of
    `encoder.layer.3.attention.query.weight`; None outside of blocks.
    """
    if not (match := re.search(r"\.(\d+)(?:\.|$)", f".{layer}")):
        return None
    before, after = f".{layer}"[: match.start()], f".{layer}"[match.end() :]
    kind = re.sub(r"\.?weight$", "", after) or before.strip(".")
    # an encoder and a decoder beside each other have layers of the same names
    return int(match[1]), f"decoder {kind}" if "decoder" in before else kind


def _rank_over_steps(ranks: Mapping[str, Mapping[int, float]], what: str) -> Panel:
    # at the start every ΔW is 0, and its rank would take half of the colours
    steps = sorted({step for row in ranks.values() for step, rank in row.items() if rank != 0})
    label = f"effective rank of {what}"
    if len(ranks) > KINDS:
        z = [[row.get(step, math.nan) for step in steps] for row in ranks.values()]
        content = Map(x=steps, y=[*ranks], z=z, unit=label)
        return Panel(title="Effective rank by layer", x="optimiser step", y="layer", content=content)
    lines = [Series(name=layer, x=[*row], y=[*row.values()]) for layer, row in ranks.items()]
    return Panel(title="Effective rank by layer", x="optimiser step", y=label, content=lines)


def _effective(spectrum: Spectrum) -> list[float]:
    values = torch.tensor(spectrum.values)
    finite = torch.isfinite(values).all(-1)
    ranks = effective_rank(values.nan_to_num(), singular_values=True)
    return torch.where(finite, ranks, torch.full_like(ranks, math.nan)).tolist()


def _spread(count: int) -> list[int]:
    """At most `LINES` of 0 … count − 1: the first ones, then ever farther apart, and the last."""
    if count <= LINES:
        return list(range(count))
    return sorted({round(count ** (i / (LINES - 1))) - 1 for i in range(LINES)} | {count - 1})
