"""Which comparisons within a table are suspicious, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from bench.records.record import DoneRecord
from bench.records.schema import Cost
from leaderboard.tables.grouping import short
from leaderboard.tables.table import Mark, Row

SEEDS = 3
"""Fewer than so many have no rank."""


def marks(rows: Sequence[Row], records: Mapping[str, DoneRecord]) -> list[tuple[Mark, ...]]:
    """The marks of each row of one table, given its done runs by id.

    A table's rows have one budget as they were asked for; what a run really did is in its cost, and may differ: a
    method that stops by itself, a data set that shrank.
    """
    steps = _odd(rows, records, "steps", lambda cost: cost.steps, "optimiser steps")
    batch = _odd(rows, records, "batch", _batch, "examples a step")
    chosen = _selection(rows)
    return [
        tuple(mark for mark in (_seeds(row), *steps[i], *batch[i], chosen[i]) if mark) for i, row in enumerate(rows)
    ]


def _batch(cost: Cost) -> float:
    return round(cost.samples / max(1, cost.steps), 1)


def _seeds(row: Row) -> Mark | None:
    fewest = min((cell.n for cell in row.cells if cell), default=0)
    if not fewest or fewest >= SEEDS:
        return None
    return Mark("seeds", f"{fewest} seed{'s' if fewest > 1 else ''}, fewer than three: no rank")


def _odd(
    rows: Sequence[Row],
    records: Mapping[str, DoneRecord],
    code: Literal["steps", "batch"],
    of: Callable[[Cost], float],
    unit: str,
) -> list[list[Mark]]:
    """Rows whose runs took other steps, or other batches, than most runs on the same task."""
    counts: dict[int, Counter[float]] = defaultdict(Counter)
    for row in rows:
        for column, cell in enumerate(row.runs):
            counts[column].update(of(records[run.run_id].cost) for run in cell)
    usual = {column: max(sorted(seen), key=seen.__getitem__) for column, seen in counts.items() if seen}
    found: list[list[Mark]] = []
    for row in rows:
        parts: list[str] = []
        for column, cell in enumerate(row.runs):
            other = sorted({value for run in cell if (value := of(records[run.run_id].cost)) != usual[column]})
            if other:
                task = short(records[cell[0].run_id].spec.task)
                parts.append(f"{task} {', '.join(f'{value:g}' for value in other)} (most: {usual[column]:g})")
        found.append([Mark(code, f"other {unit}: {'; '.join(parts)}")] if parts else [])
    return found


def _selection(rows: Sequence[Row]) -> list[Mark | None]:
    """Rows whose learning rate was given where others' were chosen, or chosen from another number of candidates."""
    scored = [row for row in rows if any(row.cells)]
    selected = [row for row in scored if row.selected]
    if not selected:
        return [None] * len(rows)
    sizes = Counter(_candidates(row) for row in selected)
    usual = max(sorted(sizes), key=sizes.__getitem__)

    def mark(row: Row) -> Mark | None:
        if not any(row.cells):
            return None
        if not row.selected:
            return Mark("selection", f"learning rate given, that of {len(selected)} other rows was selected")
        if _candidates(row) != usual:
            return Mark("selection", f"selected from {_candidates(row)} learning rates, most rows from {usual}")
        return None

    return [mark(row) for row in rows]


def _candidates(row: Row) -> int:
    return len(row.settings.get("select", "").split(","))
