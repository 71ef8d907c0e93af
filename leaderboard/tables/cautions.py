"""Cautions: reasons why a row of a table is not fairly compared with the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
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
    batch = _unusual(rows, records, "batch", _batch, "examples a step")
    found = zip(map(_few_seeds, rows), steps, batch, _selection(rows), strict=True)
    return [tuple(caution for caution in cautions if caution) for cautions in found]


def _batch(cost: Cost) -> float:
    return round(cost.samples / max(1, cost.steps), 1)


def _few_seeds(row: Row) -> RowCaution | None:
    fewest = min((cell.n for cell in row.cells if cell), default=0)
    if not fewest or fewest >= SEEDS:
        return None
    return RowCaution("seeds", f"{fewest} seed{'s' if fewest > 1 else ''}, fewer than three: no rank")


def _unusual(
    rows: Sequence[Row],
    records: Mapping[str, DoneRecord],
    code: Literal["steps", "batch"],
    of: Callable[[Cost], float],
    unit: str,
) -> list[RowCaution | None]:
    """A caution for each row with runs whose number of steps, or batch size, differs from most runs on that task."""
    counts: dict[int, Counter[float]] = defaultdict(Counter)
    for row in rows:
        for column, cell in enumerate(row.runs):
            counts[column].update(of(records[run.run_id].cost) for run in cell)
    usual = {column: max(sorted(seen), key=seen.__getitem__) for column, seen in counts.items() if seen}
    found: list[RowCaution | None] = []
    for row in rows:
        parts: list[str] = []
        for column, cell in enumerate(row.runs):
            other = sorted({value for run in cell if (value := of(records[run.run_id].cost)) != usual[column]})
            if other:
                task = short_task(records[cell[0].run_id].spec.task)
                parts.append(f"{task} {', '.join(f'{value:g}' for value in other)} (most: {usual[column]:g})")
        found.append(RowCaution(code, f"other {unit}: {'; '.join(parts)}") if parts else None)
    return found


def _selection(rows: Sequence[Row]) -> list[RowCaution | None]:
    """A caution for each row whose learning rate was given or had another number of candidates, unlike other rows."""
    scored = [row for row in rows if any(row.cells)]
    selected = [row for row in scored if row.selected]
    if not selected:
        return [None] * len(rows)
    sizes = Counter(_candidates(row) for row in selected)
    usual = max(sorted(sizes), key=sizes.__getitem__)

    def caution(row: Row) -> RowCaution | None:
        if not any(row.cells):
            return None
        if not row.selected:
            return RowCaution("selection", f"learning rate given, that of {len(selected)} other rows was selected")
        if _candidates(row) != usual:
            return RowCaution("selection", f"selected from {_candidates(row)} learning rates, most rows from {usual}")
        return None

    return [caution(row) for row in rows]


def _candidates(row: Row) -> int:
    return len(row.settings.get("select", "").split(","))
