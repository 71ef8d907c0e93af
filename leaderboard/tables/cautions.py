"""Cautions: reasons why a row of a table is not fairly compared with the others."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mode
from typing import Literal

from leaderboard.tables.grouping import format_number, group_by
from leaderboard.tables.table import Column, Row, RowCaution, Scored

SEEDS = 3
"""Rows with fewer seeds have no rank."""


def row_cautions(rows: Sequence[Row], columns: Sequence[Column]) -> list[tuple[RowCaution, ...]]:
    """The cautions of each row of one table.

    The rows of a table have the same requested budget. What their runs used may differ: a method may stop early, a
    dataset may have become smaller.
    """
    tasks = [column.task for column in columns]
    steps, batch = _unusual(rows, tasks, "steps", "optimiser steps"), _unusual(rows, tasks, "batch", "examples a step")
    chance = [_chance(row, tasks) for row in rows]
    cautions = zip(map(_few_seeds, rows), steps, batch, _selection(rows), chance, strict=True)
    return [tuple(filter(None, of_row)) for of_row in cautions]


def _few_seeds(row: Row) -> RowCaution | None:
    fewest = min((cell.n for cell in row.cells if cell), default=SEEDS)
    if fewest >= SEEDS:
        return None
    return RowCaution("seeds", f"{fewest} seed{'s' if fewest > 1 else ''}, fewer than three: no rank")


def _chance(row: Row, tasks: Sequence[str]) -> RowCaution | None:
    """A caution for a row that is not above chance on some task: an update that learned nothing has a rank too."""
    found = {task: score for task, score in zip(tasks, row.chance, strict=False) if score is not None}
    if not found:
        return None
    scores = ", ".join(f"{task} ({score:.3f})" for task, score in found.items())
    ranks = "say nothing" if row.learned_nothing else "are means over these runs too"
    ranks = f"; its ranks of ΔW {ranks}" if row.effective is not None else ""
    return RowCaution("chance", f"not above the score of ignoring the input on {scores}{ranks}")


def _unusual(
    rows: Sequence[Row], tasks: Sequence[str], code: Literal["steps", "batch"], unit: str
) -> list[RowCaution | None]:
    """A caution for each row with runs whose number of steps, or batch size, differs from most runs on that task.

    The mean batch of two runs is alike if they differ by no more than one batch over all steps: which batches are the
    short ones at the end of an epoch depends on the seed.
    """
    columns = [sorted(getattr(run, code) for row in rows for run in row.runs[i]) for i in range(len(tasks))]
    usual = [mode(column) if column else 0.0 for column in columns]

    def differs(run: Scored, most: float) -> bool:
        slack = most / max(1, run.steps) if code == "batch" else 0
        return abs(getattr(run, code) - most) > slack

    def caution(row: Row) -> RowCaution | None:
        parts: list[str] = []
        for task, cell, most in zip(tasks, row.runs, usual, strict=True):
            if other := sorted({getattr(run, code) for run in cell if differs(run, most)}):
                parts.append(f"{task} {', '.join(f'{value:g}' for value in other)} (most: {most:g})")
        return RowCaution(code, f"other {unit}: {'; '.join(parts)}") if parts else None

    return [*map(caution, rows)]


def _selection(rows: Sequence[Row]) -> list[RowCaution | None]:
    """A caution for each row of which nothing was selected, or from other candidates, unlike other rows."""
    sizes = sorted(row.candidates for row in rows if row.candidates and any(row.cells))
    if not sizes:
        return [None] * len(rows)
    usual, rates_alone = mode(sizes), all(row.rates_alone for row in rows)
    rates = [row.rates for row in rows if row.candidates and any(row.cells)]
    common = mode(rates)
    most = 2 * rates.count(common) > len(rates)

    def caution(row: Row) -> RowCaution | None:
        if not any(row.cells):
            return None
        if not row.candidates:
            given = f"learning rate given, that of {len(sizes)} other rows was selected"
            return RowCaution(
                "selection", given if rates_alone else f"nothing was selected, unlike in {len(sizes)} other rows"
            )
        if row.candidates != usual:
            unit = "learning rates" if rates_alone else "candidates"
            return RowCaution("selection", f"selected from {row.candidates} {unit}, most rows from {usual}")
        if row.rates == common or not most:  # without a majority `rates_note` lists all
            return None
        return RowCaution(
            "selection", f"learning rate selected from {_listed(row.rates)}, most rows from {_listed(common)}"
        )

    return [caution(row) for row in rows]


def rates_note(rows: Sequence[Row]) -> tuple[str, ...]:
    """A note with the candidate learning rates of all rows, where rows differ and no candidates are those of most."""
    selected = [row for row in rows if row.candidates and any(row.cells)]
    by_rates = group_by(selected, lambda row: row.rates)
    if len(by_rates) < 2 or max(map(len, by_rates.values())) * 2 > len(selected):
        return ()
    listed = "; ".join(f"{_listed(rates)} ({', '.join(row.label for row in same)})" for rates, same in by_rates.items())
    return (f"learning rates were selected from different candidates: {listed}",)


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(map(format_number, rates)) or "none"
