"""Figures as pictures for papers and documents (PDF, SVG or PNG, by matplotlib)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from bench.core.files import replacing
from bench.figures import Axis, Figure, Map, Panel, Series, style

DPI = 200
NOT_OF_NOW: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
"""Metadata that matplotlib would fill with its version and the time."""
WIDTH, HEIGHT = 4.2, 3.1
"""Size of a panel in inches; a single one is a third wider."""
MARGIN = 0.12
LINE = 0.17
"""Height of a line of small text, in inches."""
MARKERS = dict(zip(style.MARKERS, ("o", "s", "^", "D", "v", "X", "P"), strict=True))
DASHES: dict[str, tuple[int, tuple[float, ...]]] = {
    "dash": (0, (4, 2)),
    "dot": (0, (1, 1.5)),
    "dashdot": (0, (5, 1.5, 1, 1.5)),
}
MAX_TICKS = 24
"""Most names along an axis of a map or of categories."""
MAX_X_TICKS = 8
"""Up to so many round values (ranks, sample sizes) on a logarithmic x axis get a tick each."""
MAX_ENTRIES = 10
"""Most legend entries of an ordered sequence: the first, the last, and evenly spaced ones between."""


def write(figure: Figure, path: Path) -> None:
    """Draw `figure` into the file `path`, a PDF, SVG or PNG by the end of its name; the same figure gives equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    columns = max(1, min(figure.columns, len(figure.panels)))
    rows = max(1, -(-len(figure.panels) // columns))
    width = WIDTH * columns * (4 / 3 if columns == 1 else 1)
    looks = style.looks(figure)  # of all series, so that a page has the same
    figure = style.without_hidden(figure)
    shared = style.shared_legend(figure, looks) and len(style.names(figure.panels)) > 1
    entries, across = _entries(figure.panels, looks, width) if shared else ([], 1)
    caption = textwrap.wrap(_text(figure.caption, 2000), int(width * 16))
    top = 0.4
    below = LINE * (len(caption) + 1.2 * -(-len(entries) // across)) + MARGIN * (1 + bool(caption) + bool(entries))
    height = rows * HEIGHT + top + below
    canvas = Canvas(figsize=(width, height), dpi=DPI, facecolor="white")
    inside = (MARGIN / width, below / height, 1 - 2 * MARGIN / width, 1 - (top + below) / height)
    canvas.set_layout_engine("constrained", rect=inside)
    for place, panel in enumerate(figure.panels, 1):
        axes = canvas.add_subplot(rows, columns, place)
        _panel(canvas, axes, panel, looks)
        if not shared and len(style.series(panel)) > 1:
            _legend(axes, _entries([panel], looks, WIDTH)[0], loc="best", ncols=1)
    canvas.text(MARGIN / width, 1 - 0.1 / height, _text(figure.title, 120), va="top", size=12, weight="bold")
    if entries:
        middle = (LINE * len(caption) + MARGIN * (1 + bool(caption))) / height
        _legend(canvas, entries, loc="lower center", bbox_to_anchor=(0.5, middle), ncols=across, borderaxespad=0)
    canvas.text(MARGIN / width, MARGIN / height, "\n".join(caption), va="bottom", size=8, color="#444444")
    kind = path.suffix.removeprefix(".")
    with replacing(path) as file, rc_context({"svg.hashsalt": "lowrank-bench"}):
        canvas.savefig(file, format=kind, dpi=DPI, metadata=NOT_OF_NOW[kind] | {"Title": style.plain(figure.title)})


def _panel(canvas: Canvas, axes: Axes, panel: Panel, looks: dict[str, style.Look]) -> None:
    axes.set_title(textwrap.fill(_text(panel.title, 110), 52), size=10, loc="left")
    axes.set_xlabel(_text(panel.x, 80), size=9)
    axes.set_ylabel(_text(panel.y, 60), size=9)
    axes.tick_params(which="both", labelsize=8, color="#888888")
    for side, spine in axes.spines.items():
        spine.set_visible(isinstance(panel.content, Map) or side in {"left", "bottom"})
        spine.set_color("#888888")
    if isinstance(panel.content, Map):
        _map(canvas, axes, panel.content, panel)
    else:
        axes.grid(visible=True, color="#E3E3E3", linewidth=0.6)
        axes.set_axisbelow(True)
        _series(axes, panel, looks)


def _series(axes: Axes, panel: Panel, looks: dict[str, style.Look]) -> None:
    every, names = style.series(panel), style.categories(style.along(panel, "x"))
    x_axis: Axis = "linear" if names else style.usable(panel.x_axis, style.along(panel, "x"))
    y_axis = style.usable(panel.y_axis, style.along(panel, "y"))
    # these scales clip and do not mask: a whisker that ends at or below 0 still shows its upper half
    axes.set_xscale(x_axis)
    axes.set_yscale(y_axis)
    bars = [place for place, s in enumerate(every) if s.form == "bars"]
    # of all bars together: a series at two of three places has bars of the same width as the others
    places = sorted({names.index(str(v)) if names else float(v) for s in every if s.form == "bars" for v in s.x})
    width = 0.8 * min((b - a for a, b in pairwise(places)), default=1.0) / max(1, len(bars))
    for place, series in enumerate(every):
        x = np.array([names.index(str(v)) for v in series.x] if names else [float(v) for v in series.x], dtype=float)
        y = _shown(np.array(series.y, dtype=float), y_axis)
        beside = (bars.index(place) - (len(bars) - 1) / 2) * width if place in bars else 0.0
        _draw(axes, series, _shown(x, x_axis) + beside, y, looks[series.name], width)
    if names:
        _named(axes, "x", names)
    elif x_axis == "log" and (ticks := _round_values(every)):
        axes.set_xticks(ticks, [f"{v:g}" for v in ticks])
        axes.set_xticks([], minor=True)
    elif x_axis == "log" and axes.get_xlim()[1] >= 10 * axes.get_xlim()[0]:
        axes.xaxis.set_minor_formatter(NullFormatter())  # labels between powers of ten overlap


def _round_values(every: Sequence[Series]) -> list[float]:
    """Return the positive values along x if they are few and none has more than three digits; else none."""
    values = sorted({float(v) for s in every for v in s.x if float(v) > 0})
    return values if len(values) <= MAX_X_TICKS and all(float(f"{v:.3g}") == v for v in values) else []


def _draw(axes: Axes, series: Series, x: np.ndarray, y: np.ndarray, look: style.Look, width: float) -> None:
    colour, rank = look.light, 3 if series.form == "dashed" else 2
    if series.form == "bars":
        axes.bar(x, y, width=width, color=colour, zorder=rank)
    elif series.form == "points":
        axes.plot(x, y, MARKERS[look.marker], color=colour, markersize=4, alpha=0.8, markeredgewidth=0, zorder=rank)
    else:
        dash = DASHES[look.dash] if series.form == "dashed" else "-"
        marker = "o" if np.isfinite(y).sum() == 1 else "none"  # a line through one point is invisible
        axes.plot(x, y, color=colour, linestyle=dash, marker=marker, linewidth=1.5, markersize=4, zorder=rank)
    if len(series.spread):
        ink, spread = "#222222" if series.form == "bars" else colour, np.array(series.spread, dtype=float)
        axes.errorbar(x, y, yerr=spread, fmt="none", ecolor=ink, elinewidth=1, capsize=2.5)


def _map(canvas: Canvas, axes: Axes, content: Map, panel: Panel) -> None:
    z = np.ma.masked_invalid(np.array(content.z, dtype=float).reshape(len(content.y), len(content.x)))
    across, down = _along(axes, "x", content.x, panel.x_axis), _along(axes, "y", content.y, panel.y_axis)
    axes.set_facecolor("#DDDDDD")  # shows where there is no number
    bar = canvas.colorbar(axes.pcolormesh(across, down, z, cmap="viridis", shading="flat", rasterized=True), ax=axes)
    bar.set_label(_text(content.unit, 60), size=9)
    bar.ax.tick_params(labelsize=8)
    if any(isinstance(v, str) for v in content.y):
        axes.invert_yaxis()  # names are read from the top: the first layer first


def _along(axes: Axes, which: str, values: Sequence[float] | Sequence[str], wanted: Axis) -> np.ndarray:
    """Set up one axis of a map and return the borders (n + 1,) of its n columns or rows.

    Borders lie halfway between values; the outer ones are the outer values.
    """
    numbers = [v for v in values if not isinstance(v, str)]
    axis: Axis = wanted if len(numbers) == len(values) and min(numbers, default=0) > 0 else "linear"
    (axes.set_xscale if which == "x" else axes.set_yscale)(axis)
    if len(numbers) < len(values) or len(values) < 2:
        _named(axes, which, [v if isinstance(v, str) else f"{v:g}" for v in values])
        return np.arange(len(values) + 1) - 0.5
    c = np.log(numbers) if axis == "log" else np.array(numbers, dtype=float)
    borders = np.concatenate([c[:1], (c[1:] + c[:-1]) / 2, c[-1:]])
    return np.exp(borders) if axis == "log" else borders


def _named(axes: Axes, which: str, values: Sequence[str]) -> None:
    """Write names along an axis at 0, 1, 2, …: all of them, or evenly spaced ones."""
    every = max(1, -(-len(values) // MAX_TICKS))
    at = list(range(0, len(values), every))
    labels = [_text(label, 28) for label in style.labels(values, 28)[::every]]
    if which == "y":
        axes.set_yticks(at, labels, size=7)
        return
    if len(at) > 4 or max(map(len, labels), default=0) > 10:
        axes.set_xticks(at, labels, rotation=40, ha="right", rotation_mode="anchor", size=7)
    else:
        axes.set_xticks(at, labels)


def _entries(
    panels: Sequence[Panel], looks: dict[str, style.Look], width: float
) -> tuple[list[tuple[Line2D, str]], int]:
    """Make legend entries (handle, text) of the names in `panels`, and return how many fit in a row."""
    names = style.names(panels)
    ordered = [name for name in names if looks[name].ordered]
    if len(ordered) > MAX_ENTRIES:
        kept = {ordered[i] for i in np.linspace(0, len(ordered) - 1, MAX_ENTRIES).round().astype(int)}
        names = [name for name in names if not looks[name].ordered or name in kept]
    forms = {s.name: s.form for panel in reversed(panels) for s in reversed(style.series(panel))}
    entries = [(_handle(forms[name], looks[name]), _text(name, 48)) for name in names]
    longest = max((len(text) for _, text in entries), default=0)
    return entries, max(1, min(len(entries), int((width - 0.2) / (0.075 * longest + 0.5))))


def _handle(form: str, look: style.Look) -> Line2D:
    if form in {"points", "bars"}:
        marker = MARKERS[look.marker] if form == "points" else "s"
        return Line2D([], [], color=look.light, marker=marker, linestyle="", markersize=5 if form == "points" else 7)
    return Line2D([], [], color=look.light, linestyle=DASHES[look.dash] if form == "dashed" else "-")


def _legend(where: Canvas | Axes, entries: list[tuple[Line2D, str]], **options: Any) -> None:
    # older matplotlib leaves out labels that begin with an underscore; a space before it keeps them
    labels = [f" {text}" if text.startswith("_") else text for _, text in entries]
    where.legend([h for h, _ in entries], labels, fontsize=8, frameon=False, columnspacing=1.2, **options)


def _shown(values: np.ndarray, axis: Axis) -> np.ndarray:
    """Replace values that the axis cannot show by NaN, which leaves a gap."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values) & ((values > 0) | (axis == "linear")), values, np.nan)


def _text(text: str, longest: int) -> str:
    """Prepare a text for matplotlib: no formulas (a layer may be called `$x$`), only characters that its font has."""
    clean = "".join(c if c in _glyphs() else "?" for c in style.plain(text, longest))
    return clean.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[str]:
    return frozenset(map(chr, get_font(findfont(FontProperties())).get_charmap()))
