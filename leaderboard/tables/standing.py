"""How the rows of a table stand to each other and to chance: differences, ranks, and which are equal to the best."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from bench.core.text import DECIMALS, SMALL
from bench.records.record import DoneRecord, Record, is_done
from leaderboard.tables.cautions import SEEDS
from leaderboard.tables.examples import FILE, MOST_RUNS, Examples, chance_of_record
from leaderboard.tables.grouping import Seed
from leaderboard.tables.intervals import Difference, Drawn, Noise, Paired, difference, interval, pair
from leaderboard.tables.table import Column, Row, RowCaution, Scored, Stat, by_seed

if TYPE_CHECKING:
    from leaderboard.tables.examples import Values

Cells = Sequence[Sequence[Scored]]
"""The runs of a row, column by column."""


class Comparer:
    """Compares rows, paired by seed and by example."""

    def __init__(self, runs: Iterable[Record], examples: Examples) -> None:
        """Args: the runs of all tables, and what they kept of their outputs, which counts if there are not too many."""
        self._crowded = examples.folder is not None and sum(map(is_done, runs)) > MOST_RUNS
        self._examples = Examples() if self._crowded else examples

    def difference(self, cells: Cells, others: Cells, *, comparisons: int = 1) -> Difference | None:
        """Scores of `cells` minus those of `others` on the same columns."""
        return difference(by_seed(cells), by_seed(others), self._both(cells, others), comparisons=comparisons)

    def pair(self, cells: Cells, others: Cells) -> Paired | None:
        """The same seed by seed."""
        return pair(by_seed(cells), by_seed(others), self._both(cells, others))

    def chance(self, runs: Sequence[DoneRecord]) -> float | None:
        """The score of ignoring the input, if the interval of the runs' score holds it or lies below it; else None."""
        if not runs:
            return None
        sign = 1 if runs[0].metrics.primary.higher_is_better else -1
        drawn = [(self._examples.of(run), self._examples.chance(run)) for run in runs]
        pairs = [(mine, chance) for mine, chance in drawn if mine and chance]
        if len(pairs) == len(runs):
            above = [sign * (mine.score - chance.score) for mine, chance in pairs]
            noise, score = Noise.of([mine.drawn - chance.drawn for mine, chance in pairs]), pairs[0][1].score
        else:
            known = [found for run in runs if (found := chance_of_record(run))]
            if len(known) < len(runs):
                return None
            above, score = [sign * (mine - chance) for mine, chance, _ in known], known[0][1]
            noise = Noise(known[0][2], known[0][2])
        ends = interval(above, noise)
        return score if ends and ends[0] <= 0 else None

    def note(self, rows: Sequence[Row]) -> list[str]:
        """What the intervals of a table are over, if there are any."""
        ranked = sum(any(cell and cell.n >= SEEDS for cell in row.cells) for row in rows)
        if ranked < 2 and not any(row.difference or any(row.differences) for row in rows):
            return []
        runs = [run.record for row in rows for cell in row.runs for run in cell]
        kept = sum(self._examples.of(run) is not None for run in runs)
        if kept == len(runs):
            return ["intervals are over seeds and examples"]
        if kept:
            why = f"{kept} of {len(runs)} runs have outputs to resample"
            return [f"intervals are over seeds and examples, or over seeds alone: {why}"]
        why = f"no run has outputs to resample ({FILE} beside its record)"
        if self._crowded:
            why = f"outputs are read of {MOST_RUNS:,} runs at most; choose some with --tasks, --methods or --where"
        return [f"intervals are over seeds alone: {why}"]

    def _both(self, cells: Cells, others: Cells) -> list[Drawn[Seed]]:
        return [*map(self._drawn, cells, others)] if self._examples.folder else []

    def _drawn(self, cell: Sequence[Scored], other: Sequence[Scored]) -> Drawn[Seed]:
        examples = cell[0].record.metrics.primary.n if cell else 0
        return Drawn(self._by_seed(cell), self._by_seed(other), examples)

    def _by_seed(self, cell: Sequence[Scored]) -> dict[Seed, Values]:
        found = ((run.seed, self._examples.of(run.record)) for run in cell)
        return {seed: one.drawn for seed, one in found if one}


def with_differences(row: Row, base: Row, compare: Comparer, *, averaged: bool) -> Row:
    """The row with its differences from the baseline."""
    by_task = tuple(compare.difference([a], [b]) for a, b in zip(row.runs, base.runs, strict=True))
    return replace(row, difference=compare.difference(row.runs, base.runs) if averaged else None, differences=by_task)


def ranked(rows: Sequence[Row], columns: Sequence[Column], compare: Comparer) -> tuple[Row, ...]:
    """Rows with their ranks: best average first; then rows without one, ordered by number of tasks and name.

    Rows within noise of the best average share rank 1.
    """
    sign = -1 if columns[0].higher_is_better else 1

    def printed(mean: float) -> float:
        """The mean as printed, negated where higher is better: averages that print alike share a rank."""
        return sign * (float(f"{mean:.{DECIMALS}g}") if sign > 0 and abs(mean) < SMALL else round(mean, DECIMALS))

    def order(row: Row) -> tuple[bool, float, int, str, str]:
        average = printed(row.average.mean) if row.average else 0.0
        return row.average is None, average, sum(cell is None for cell in row.cells), row.method, row.label

    averages = {row.label: printed(row.average.mean) for row in rows if row.average and row.average.n >= SEEDS}
    places = _places(averages)
    by_task = [
        _places({row.label: printed(cell.mean) for row in rows if row.label in averages and (cell := row.cells[i])})
        for i in range(len(columns))
    ]
    names = [f"{column.task} {column.data}".rstrip() for column in columns]
    by_column = [_bests(rows, lambda row, i=i: row.cells[i], [i], column, compare) for i, column in enumerate(columns)]
    of_average = by_column[0]
    if len(columns) > 1:
        of_average = _bests(rows, lambda row: row.average, range(len(columns)), columns[0], compare)
        names, by_column = [*names, "average"], [*by_column, of_average]

    def with_rank(row: Row) -> Row:
        leads = tuple(row.label in found.leading for found in by_column)
        noisy = [name for name, found in zip(names, by_column, strict=True) if row.label in found.noisy]
        text = f"varies too much to be set apart from the best on {', '.join(noisy)}"
        cautions = (*row.cautions, *([RowCaution("noise", text)] if noisy else []))
        average_leads = row.label in of_average.leading
        row = replace(row, leads=leads[: len(columns)], average_leads=average_leads, cautions=cautions)
        if row.label not in averages:
            return row
        average_rank = fmean(task_places[row.label][1] for task_places in by_task)
        rank = 1 if row.label in of_average.equal else places[row.label][0]
        return replace(row, rank=rank, average_rank=average_rank)

    return tuple(map(with_rank, sorted(rows, key=order)))


class _Bests(NamedTuple):
    """Labels of rows of three seeds, of one column or of the average.

    Attributes:
        equal: the best, and those within noise of it down to the first that is set apart.
        leading: the same if some row is set apart; else none.
        noisy: those below the first that is set apart, which vary too much to be so themselves.
    """

    equal: frozenset[str]
    leading: frozenset[str]
    noisy: frozenset[str]


def _bests(
    rows: Sequence[Row], stat: Callable[[Row], Stat | None], cells: Sequence[int], column: Column, compare: Comparer
) -> _Bests:
    """Compare each row with the best; the intervals are wider by as much as so many comparisons need."""
    sign = 1 if column.higher_is_better is False else -1
    means = {row.label: sign * found.mean for row in rows if (found := stat(row)) and found.n >= SEEDS}
    runs = {row.label: [row.runs[i] for i in cells] for row in rows if row.label in means}
    equal, noisy, apart = set[str](), set[str](), False
    ordered = sorted(means, key=lambda label: means[label])
    best = ordered[0] if ordered else ""
    for label in ordered:
        found = compare.difference(runs[label], runs[best], comparisons=len(means) - 1) if label != best else None
        within = label == best or bool(found and found.holds_zero)
        apart = apart or not within
        if within:
            (noisy if apart else equal).add(label)
    return _Bests(frozenset(equal), frozenset(equal if apart else ()), frozenset(noisy))


def _places(values: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """Place of each value, the smallest first: the best place among ties, and the mean of their places."""
    ordered = sorted(values.values())
    ends = {name: (bisect_left(ordered, value) + 1, bisect_right(ordered, value)) for name, value in values.items()}
    return {name: (first, (first + last) / 2) for name, (first, last) in ends.items()}
