"""The leaderboard as a picture: score against trained parameters, and the rank that each layer's update really used."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import UsageError
from bench.figures import Figure, Panel, Series
from leaderboard.tables.table import Row, Stat, Table


def figure(tables: Sequence[Table]) -> Figure:
    """Of the table with the most scores.

    Raises:
        UsageError: no row has a score.
    """
    scored = [table for table in tables if any(_score(row) for row in table.rows)]
    if not scored:
        raise UsageError("nothing to draw", "no row has a score on every task", "Finish the runs, or choose --tasks.")
    table = max(scored, key=lambda one: sum(cell.n for row in one.rows for cell in row.cells if cell))
    rows = [row for row in table.rows if _score(row) and row.trainable]
    panels = [
        Panel(
            title="What a method is worth, against its parameters",
            x="trained parameters",
            y=_label(table),
            content=[_point(row) for row in rows],
            x_axis="log",
        )
    ]
    used = [row for row in rows if row.layers]
    if used:
        panels.append(
            Panel(
                title="The rank that ΔW really used",
                x="depth of the adapted layer (0: first, 1: last)",
                y="effective rank of ΔW",
                content=[_ranks(row) for row in used],
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
    places = [i / max(1, len(row.layers) - 1) for i in range(len(row.layers))]
    return Series(name=row.label, x=places, y=[layer.effective for layer in row.layers])


def _caption(table: Table, rows: Sequence[Row]) -> str:
    seeds = sorted({stat.n for row in rows if (stat := _score(row))})
    return (
        f"{table.heading}. Mean and standard deviation over {' to '.join(map(str, seeds[:1] + seeds[1:][-1:]))} seeds."
    )
