"""Figure of the leaderboard: score against trained parameters, and effective rank of ΔW over depth."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import UsageError
from bench.figures import Figure, Panel, Series
from leaderboard.render.cells import span
from leaderboard.tables.table import Row, Stat, Table


def figure(tables: Sequence[Table]) -> Figure:
    """Draw the table with the most scores.

    Raises:
        UsageError: no row has a score.
    """
    scored = [table for table in tables if any(map(_score, table.rows))]
    if not scored:
        raise UsageError("nothing to draw", "no row has a score on every task", "Finish the runs, or choose --tasks.")
    table = max(scored, key=lambda table: sum(cell.n for row in table.rows for cell in row.cells if cell))
    drawn = [(row, row.trainable, stat) for row in table.rows if (stat := _score(row)) and row.trainable]
    points = [
        Series(name=row.label, x=(x,), y=(stat.mean,), spread=() if stat.sd is None else (stat.sd,), form="points")
        for row, x, stat in drawn
    ]
    title, x = "Score against trained parameters", "trained parameters"
    column = table.columns[0]
    y = f"{column.task} {column.metric}" if len(table.columns) == 1 else f"average over {len(table.columns)} tasks"
    panels = [Panel(title=title, x=x, y=y, content=points, x_axis="log")]
    if ranks := [_ranks(row) for row, *_ in drawn if row.layers]:
        title, x = "Effective rank of ΔW over depth", "depth of the adapted layer (0: first, 1: last)"
        panels.append(Panel(title=title, x=x, y="effective rank of ΔW", content=ranks, y_axis="log"))
    seeds = span(stat.n for *_, stat in drawn)
    caption = f"{table.heading}. Mean and standard deviation over {seeds} seeds."
    return Figure(title="lowrank-bench leaderboard", panels=panels, caption=caption)


def _score(row: Row) -> Stat | None:
    return row.cells[0] if len(row.cells) == 1 else row.average


def _ranks(row: Row) -> Series:
    depth = [i / max(1, len(row.layers) - 1) for i in range(len(row.layers))]
    return Series(name=row.label, x=depth, y=[layer.effective for layer in row.layers])
