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
    scored = [table for table in tables if any(_score(row) for row in table.rows)]
    if not scored:
        raise UsageError("nothing to draw", "no row has a score on every task", "Finish the runs, or choose --tasks.")
    table = max(scored, key=lambda table: sum(cell.n for row in table.rows for cell in row.cells if cell))
    rows = [row for row in table.rows if _score(row) and row.trainable]
    panels = [
        Panel(
            title="Score against trained parameters",
            x="trained parameters",
            y=_label(table),
            content=[_point(row) for row in rows],
            x_axis="log",
        )
    ]
    with_layers = [row for row in rows if row.layers]
    if with_layers:
        panels.append(
            Panel(
                title="Effective rank of ΔW over depth",
                x="depth of the adapted layer (0: first, 1: last)",
                y="effective rank of ΔW",
                content=[_ranks(row) for row in with_layers],
                y_axis="log",
            )
        )
    return Figure(title="lowrank-bench leaderboard", panels=panels, caption=_caption(table, rows))


def _score(row: Row) -> Stat | None:
    return row.average if len(row.cells) > 1 else next(iter(row.cells), None)


def _label(table: Table) -> str:
    if len(table.columns) > 1:
        return f"average over {len(table.columns)} tasks"
    return " ".join(f"{column.task} {column.metric}" for column in table.columns)


def _point(row: Row) -> Series:
    stat = _score(row)
    mean, sd = (stat.mean, stat.sd) if stat else (0.0, None)
    spread = () if sd is None else (sd,)
    return Series(name=row.label, x=(row.trainable or 0.0,), y=(mean,), spread=spread, form="points")


def _ranks(row: Row) -> Series:
    depth = [i / max(1, len(row.layers) - 1) for i in range(len(row.layers))]
    return Series(name=row.label, x=depth, y=[layer.effective for layer in row.layers])


def _caption(table: Table, rows: Sequence[Row]) -> str:
    seeds = span(sorted({stat.n for row in rows if (stat := _score(row))}))
    return f"{table.heading}. Mean and standard deviation over {seeds} seeds."
