"""Figures as one self-contained interactive page (HTML, by plotly), which loads nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from bench.core.files import write_atomic
from bench.figures import Figure, Map, Panel, Series, Table, style

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser refuses every resource that the page would load."""
MAX_ROWS = 2000
"""Most rows of a table on the page, which states how many there are."""
MAX_TICKS = 30
"""Most names along an axis."""


def write(figure: Figure, path: Path, *, table: Table | None = None) -> None:
    """Write `figure` as the page `path`: interactive plots, then `table` and the numbers of every panel.

    Raises:
        OSError: the file cannot be written.
    """
    from plotly.offline import get_plotlyjs

    looks = style.looks(figure)
    keys = {name: key for key, name in enumerate(style.names(figure.panels))}
    panels = [_panel(panel, looks, keys) for panel in figure.panels]
    parts = {
        "policy": POLICY,
        "title": escape(style.plain(figure.title)),
        "caption": escape(style.plain(figure.caption, 3000)),
        "columns": str(max(1, min(figure.columns, len(figure.panels)))),
        "legend": _legend(figure, looks),
        "plots": "\n".join(_plot(panel) for panel in figure.panels),
        "tables": "\n".join(map(_table, [*([table] if table else []), *map(_numbers, figure.panels)])),
        "data": escape_json(json.dumps(panels, allow_nan=False, separators=(",", ":"))),
        "plotly": get_plotlyjs(),
    }
    template = resources.files("bench.figures").joinpath("page.html").read_text(encoding="utf-8")
    write_atomic(path, fill(template, parts).encode("utf-8"))


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Put a part in the place of every `@@NAME@@` of a template; the parts are not searched for names."""
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(template.split("@@")))


def escape_json(text: str) -> str:
    """Escape JSON so that it cannot end the HTML element that contains it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _panel(panel: Panel, looks: dict[str, style.Look], keys: dict[str, int]) -> dict[str, object]:
    """Make a panel for the page's script: plotly's traces and axes, without colours that depend on the background."""
    if isinstance(panel.content, Map):
        traces = [_map(panel.content)]
    else:
        traces = [_trace(s, looks[s.name]) | {"key": keys[s.name]} for s in panel.content]
    return {"traces": traces, "x": _axis(panel, "x"), "y": _axis(panel, "y")}


def _axis(panel: Panel, which: Literal["x", "y"]) -> dict[str, object]:
    label, scale = (panel.x, panel.x_axis) if which == "x" else (panel.y, panel.y_axis)
    values, is_map = style.along(panel, which), isinstance(panel.content, Map)
    if names := style.categories(values):
        every = max(1, -(-len(names) // MAX_TICKS))
        axis: dict[str, object] = {
            "type": "category",
            "title": _text(label),
            "at": [_text(name) for name in names[::every]],
        }
        for screen, longest in (("wide", 28), ("narrow", 16)):
            axis[screen] = [_text(name) for name in style.labels(names, longest)[::every]]
        # the first layer at the top
        return axis | ({"autorange": "reversed"} if is_map and which == "y" else {})
    kind = style.usable(scale, values)
    axis = {"type": kind, "title": _text(label)}
    if is_map and len(values) > 1:
        numbers = [float(value) for value in values]
        ends = min(numbers), max(numbers)  # plotly would draw half a column beyond them
        axis["range"] = [math.log10(end) for end in ends] if kind == "log" else ends
    return axis


def _trace(series: Series, look: style.Look) -> dict[str, object]:
    trace: dict[str, object] = {
        "name": _text(series.name),
        "x": _values(series.x),
        "y": _values(series.y),
        "colours": [look.light, look.dark],
    }
    if len(series.spread):
        trace["error_y"] = {"type": "data", "array": _values(series.spread)}
    if series.form == "bars":
        return trace | {"type": "bar"}
    if series.form == "points":
        return trace | {"type": "scatter", "mode": "markers", "marker": {"symbol": look.marker, "size": 6}}
    dash = look.dash if series.form == "dashed" else "solid"
    mode = "lines+markers" if len(series.x) < 40 and series.form == "line" else "lines"
    return trace | {"type": "scatter", "mode": mode, "line": {"dash": dash, "width": 2}, "marker": {"size": 4}}


def _map(content: Map) -> dict[str, object]:
    return {
        "type": "heatmap",
        "x": _values(content.x),
        "y": _values(content.y),
        "z": [_values(row) for row in content.z],
        "colorscale": [[i / (len(style.VIRIDIS) - 1), colour] for i, colour in enumerate(style.VIRIDIS)],
        "colorbar": {"title": {"text": _text(content.unit), "side": "right"}, "thickness": 14},
    }


def _plot(panel: Panel) -> str:
    title, label = panel.title, f"{panel.title}: {panel.y} over {panel.x}"
    plot = f'<div class="plot" role="img" aria-label="{escape(style.plain(label))}"></div>'
    return f"<figure><h2>{escape(style.plain(title))}</h2>{plot}</figure>"


def _legend(figure: Figure, looks: dict[str, style.Look]) -> str:
    """Make buttons that show and hide the series of a name in every panel; those that are hidden at first come last."""
    named = {s.name: s for panel in figure.panels for s in style.series(panel)}
    if len(named) < 2:
        return ""
    shown: list[str] = []
    hidden: list[str] = []
    for key, (name, one) in enumerate(named.items()):
        look = looks[name]
        button = (
            f'<button type="button" data-key="{key}" aria-pressed="{"true" if one.shown else "false"}"><i class="'
            f'{one.form}" style="--light:{look.light};--dark:{look.dark}"></i>{escape(style.plain(name))}</button>'
        )
        (shown if one.shown else hidden).append(button)
    buttons = f'<div class="legend" aria-label="Series: press to hide or show">{"".join(shown)}</div>'
    if not hidden:
        return buttons
    more = f'<details class="more"><summary>{len(hidden)} more to show</summary>'
    return f'{buttons}{more}<div class="legend" aria-label="Series: press to show">{"".join(hidden)}</div></details>'


def _numbers(panel: Panel) -> Table:
    """Make a table of a panel's numbers: a row per x where series share them, else a row per point."""
    if isinstance(panel.content, Map):
        content, title = panel.content, f"{panel.title}: {panel.content.unit}"
        rows = [[y, *row] for y, row in zip(content.y, content.z, strict=True)]
        return Table(title=title, header=[panel.y, *map(str, content.x)], rows=rows)
    every, title = panel.content, f"{panel.title}: {panel.y}"
    if every and all(list(s.x) == list(every[0].x) for s in every) and not any(len(s.spread) for s in every):
        rows = [[x, *values] for x, *values in zip(every[0].x, *(s.y for s in every), strict=True)]
        return Table(title=title, header=[panel.x, *(s.name for s in every)], rows=rows)
    rows = [[s.name, *point] for s in every for point in zip_longest(s.x, s.y, s.spread)]
    return Table(title=title, header=["series", panel.x, panel.y, "±"], rows=rows)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_cell(name)}</th>' for name in table.header)
    rows: list[str] = []
    for first, *others in table.rows[:MAX_ROWS]:
        cells = "".join(f"<td>{_cell(value)}</td>" for value in others)
        rows.append(f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>')
    body = "\n".join(rows)
    count = len(table.rows)
    more = f"<p>The first {MAX_ROWS:,} of {count:,} rows; the plot shows all of them.</p>" if count > MAX_ROWS else ""
    return (
        f'<details><summary>{escape(style.plain(table.title))}</summary>{more}<div class="wide" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return escape(f"{value:.6g}" if isinstance(value, float) else style.plain(value))


def _text(text: str) -> str:
    """Escape a text for plotly, which would read some HTML in it."""
    return escape(style.plain(text), quote=False)


def _values(values: Sequence[float] | Sequence[str]) -> list[float | str | None]:
    """Escape names; numbers become Python's, or None where they are not finite."""
    return [_text(v) if isinstance(v, str) else float(v) if math.isfinite(v) else None for v in values]
