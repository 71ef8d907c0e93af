"""Cautions: reasons why a row of a table is not fairly compared with the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from statistics import mode
from typing import Literal

from bench.records.record import DoneRecord
from bench.records.schema import Cost
from leaderboard.tables.grouping import short_task
from leaderboard.tables.table import Row, RowCaution

SEEDS = 3
"""Rows with fewer seeds have no rank."""


def row_cautions(rows: Sequence[Row], records: Mapping[str, DoneRecord]) -> list[tuple[RowCaution, ...]]:
    """The cautions of each row of one table, given its done runs by id.

    The rows of a table have the same requested budget. The cost of a run says what it used, which may differ: a method
    may stop early, a dataset may have become smaller.
    """
    steps = _unusual(rows, records, "steps", lambda cost: cost.steps, "optimiser steps")
    batch = _unusual(
        rows, records, "batch", lambda cost: round(cost.samples / max(1, cost.steps), 1), "examples a step"
    )
    cautions = zip(map(_few_seeds, rows), steps, batch, _selection(rows), strict=True)
    return [tuple(filter(None, of_row)) for of_row in cautions]


def _few_seeds(row: Row) -> RowCaution | None:
    fewest = min((cell.n for cell in row.cells if cell), default=SEEDS)
    if fewest >= SEEDS:
        return None
    return RowCaution("seeds", f"{fewest} seed{'s' if fewest > 1 else ''}, fewer than three: no rank")


def _unusual(
    rows: Sequence[Row],
    records: Mapping[str, DoneRecord],
    code: Literal["steps", "batch"],
    quantity: Callable[[Cost], float],
    unit: str,
) -> list[RowCaution | None]:
    """A caution for each row with runs whose number of steps, or batch size, differs from most runs on that task."""
    values = [[[quantity(records[run.run_id].cost) for run in cell] for cell in row.runs] for row in rows]
    columns = (sorted(chain.from_iterable(column)) for column in zip(*values, strict=True))
    usual = [mode(column) if column else 0 for column in columns]

    def caution(row: Row, cells: list[list[float]]) -> RowCaution | None:
        parts: list[str] = []
        for runs, cell, most in zip(row.runs, cells, usual, strict=True):
            if other := sorted({value for value in cell if value != most}):
                task = short_task(records[runs[0].run_id].spec.task)
                parts.append(f"{task} {', '.join(f'{value:g}' for value in other)} (most: {most:g})")
        return RowCaution(code, f"other {unit}: {'; '.join(parts)}") if parts else None

    return [caution(row, cells) for row, cells in zip(rows, values, strict=True)]


def _selection(rows: Sequence[Row]) -> list[RowCaution | None]:
    """A caution for each row whose learning rate was given or had another number of candidates, unlike other rows."""
    sizes = sorted(_candidates(row) for row in rows if row.selected and any(row.cells))
    if not sizes:
        return [None] * len(rows)
    usual = mode(sizes)

    def caution(row: Row) -> RowCaution | None:
        if not any(row.cells):
            return None
        if not row.selected:
            return RowCaution("selection", f"learning rate given, that of {len(sizes)} other rows was selected")
        if _candidates(row) != usual:
            return RowCaution("selection", f"selected from {_candidates(row)} learning rates, most rows from {usual}")
        return None

    return [caution(row) for row in rows]


def _candidates(row: Row) -> int:
    return len(row.settings.get("select", "").split(","))
