"""The look of series, the same in a picture and on a page: colours, dashes, markers, and text that is safe to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

from bench.core.text import printable
from bench.figures import Axis, Figure, Map, Panel, Series

ORDERED = 8
"""So many lines in a panel, or more, count as ordered (steps, singular values) and get a sequential palette."""
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
"""Okabe and Ito (2008), distinguishable with every common colour blindness; violet for yellow, too pale on white."""
DARK = ("#4AA8E8", "#FF8A4C", "#2FC99B", "#E7A3C9", "#F5B83D", "#9AD4F7", "#B79AE0")
"""The same hues for a dark background."""
VIRIDIS = ("#440154", "#482878", "#3E4989", "#31688E", "#26828E", "#1F9E89", "#35B779", "#6ECE58", "#B5DE2B", "#FDE725")
"""matplotlib's viridis, at ninths."""
DASHES: tuple[Literal["dash", "dot", "dashdot"], ...] = ("dash", "dot", "dashdot")
MARKERS: tuple[str, ...] = ("circle", "square", "triangle-up", "diamond", "triangle-down", "x", "cross")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The look of the series of one name.

    Attributes:
        light, dark: colour on a white and on a dark background, #RRGGBB.
        ordered: the colour is one of a sequence, so a legend may leave out names in its middle.
    """

    light: str
    dark: str
    dash: Literal["dash", "dot", "dashdot"] = "dash"
    marker: str = "circle"
    ordered: bool = False


def series(panel: Panel) -> Sequence[Series]:
    """Return the panel's series; none for a map."""
    return () if isinstance(panel.content, Map) else panel.content


def names(panels: Sequence[Panel]) -> list[str]:
    """List the names of series in the order in which they appear, each once."""
    return list(dict.fromkeys(s.name for panel in panels for s in series(panel)))


def looks(figure: Figure) -> dict[str, Look]:
    """Choose the look of each name: one of a sequence, theory (grey, dashed), or a colour of its own."""
    measured = {s.name for panel in figure.panels for s in series(panel) if s.form != "dashed"}
    chosen: dict[str, Look] = {}
    for panel in figure.panels:
        ordered = [name for name in names([panel]) if name in measured]
        if len(ordered) >= ORDERED:
            chosen |= {name: _ordered(i / (len(ordered) - 1)) for i, name in enumerate(ordered) if name not in chosen}
    theory = [name for name in names(figure.panels) if name not in measured]
    for i, name in enumerate(theory):
        chosen[name] = Look(light="#222222", dark="#E6E6E6", dash=DASHES[i % len(DASHES)])
    taken: dict[str, int] = {}
    for name in names(figure.panels):
        if name not in chosen:
            together = {n for panel in figure.panels if name in names([panel]) for n in names([panel])}
            taken[name] = _colour([taken[n] for n in together if n in taken], list(taken.values()))
            chosen[name] = Look(light=LIGHT[taken[name]], dark=DARK[taken[name]], marker=MARKERS[taken[name]])
    return chosen


def without_hidden(figure: Figure) -> Figure:
    """Return the figure without the series that are not shown at first."""
    panels = [
        panel if isinstance(panel.content, Map) else replace(panel, content=[s for s in panel.content if s.shown])
        for panel in figure.panels
    ]
    return replace(figure, panels=panels)


def shared_legend(figure: Figure, looks: Mapping[str, Look]) -> bool:
    """Whether one legend suits all panels: no two names look the same, or the panels show the same names."""
    every = [looks[name] for name in names(figure.panels)]
    distinct = {(look.light, look.dash) for look in every}
    shown = [set(names([panel])) for panel in figure.panels if series(panel)]
    return len(distinct) == len(every) or all(these == shown[0] for these in shown)


def plain(text: object, longest: int = 300) -> str:
    """Return one line without control and direction characters, shortened in its middle to `longest`."""
    clean = printable(str(text))
    if len(clean) <= longest:
        return clean
    return clean[: longest // 2] + "…" + clean[len(clean) - (longest - 1 - longest // 2) :]


def labels(values: Sequence[str], longest: int) -> list[str]:
    """Shorten names of layers for an axis: without their common dotted prefix, then as `plain` does."""
    parts = [value.split(".") for value in values]
    columns = zip(*parts, strict=False) if len(set(values)) > 1 else ()
    same = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    cut = [("…" if same else "") + ".".join(part[min(same, len(part) - 1) :]) for part in parts]
    return [plain(text, longest) for text in cut]


def usable(scale: Axis, values: Sequence[float | str]) -> Axis:
    """Return `scale`, or linear where a logarithmic one could show no value."""
    return scale if any(isinstance(v, int | float) and math.isfinite(v) and v > 0 for v in values) else "linear"


def along(panel: Panel, axis: Literal["x", "y"]) -> list[float | str]:
    parts = [panel.content] if isinstance(panel.content, Map) else panel.content
    return [value for part in parts for value in (part.x if axis == "x" else part.y)]


def categories(values: Sequence[float | str]) -> list[str]:
    """List names, each once; none where the values are numbers."""
    return list(dict.fromkeys(map(str, values))) if any(isinstance(value, str) for value in values) else []


def sequential(place: float) -> str:
    """Return the colour of viridis at `place` between 0 and 1."""
    at = place * (len(VIRIDIS) - 1)
    low = min(int(at), len(VIRIDIS) - 2)
    pairs = ((int(VIRIDIS[low][i : i + 2], 16), int(VIRIDIS[low + 1][i : i + 2], 16)) for i in range(1, 7, 2))
    return "#" + "".join(f"{round(a + (b - a) * (at - low)):02X}" for a, b in pairs)


def _colour(beside: Sequence[int], everywhere: Sequence[int]) -> int:
    """Choose the colour used least, if possible none of those in the same panels."""
    free = [i for i in range(len(LIGHT)) if i not in beside] or list(range(len(LIGHT)))
    return min(free, key=everywhere.count)


def _ordered(place: float) -> Look:
    """Return a colour of viridis, without the end that is too close to the background."""
    return Look(light=sequential(0.9 * place), dark=sequential(0.3 + 0.7 * place), ordered=True)
