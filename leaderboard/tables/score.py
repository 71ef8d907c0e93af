"""What a folder of records amounts to: tables of comparable runs, one row per configuration, with honest averages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from bench.core.text import DECIMALS, SMALL
from bench.records.record import Record, is_done
from leaderboard.tables.grouping import (
    ColumnKey,
    RowKey,
    TableKey,
    column_key,
    labels,
    own_metrics,
    row_key,
    short,
    source_names,
    table_key,
)
from leaderboard.tables.intervals import difference
from leaderboard.tables.marks import SEEDS, marks
from leaderboard.tables.rows import row
from leaderboard.tables.table import Column, Row, Stat, Table

__all__ = ["Column", "Row", "Stat", "Table", "rows", "tables"]


def rows(records: Iterable[Record], *, baseline: str | None = None) -> list[Row]:
    """The rows of all tables, table after table."""
    return [row for table in tables(records, baseline=baseline) for row in table.rows]


def tables(records: Iterable[Record], *, baseline: str | None = None) -> list[Table]:
    """Tables of comparable rows. Trials of a learning-rate selection (`holdout` > 0) are no scores and are left out.

    Args:
        records: of any runs, in any order.
        baseline: method, or label of a row, that the other rows of its table are held against.
    """
    runs = sorted((r for r in records if not r.spec.holdout), key=lambda r: r.run_id)
    sources, own = source_names(runs), own_metrics(runs)
    groups: dict[TableKey, list[Record]] = defaultdict(list)
    for run in runs:
        groups[table_key(run, sources, own)].append(run)
    said = Counter(key[:-1] for key in groups)
    return [
        _table(key, groups[key], weights=said[key[:-1]] > 1, notes=_others(key, groups), baseline=baseline)
        for key in sorted(groups)
    ]


def _others(key: TableKey, groups: Iterable[TableKey]) -> tuple[str, ...]:
    """Tables that someone might lay beside this one although their budgets differ."""
    budgets = sorted({k.budget for k in groups if k != key and k._replace(budget=key.budget) == key})
    return (f"not to be compared with the rows of {'; '.join(budgets)}: another budget",) if budgets else ()


def _table(key: TableKey, runs: list[Record], *, weights: bool, notes: tuple[str, ...], baseline: str | None) -> Table:
    """The table of `runs`; `weights` names their hash, where another table would read the same without it."""
    by_column: dict[ColumnKey, list[Record]] = defaultdict(list)
    by_row: dict[RowKey, list[Record]] = defaultdict(list)
    for run in runs:
        by_column[column_key(run)].append(run)
        by_row[row_key(run)].append(run)
    keys = sorted(by_column)
    columns = tuple(_column(one, keys, by_column[one]) for one in keys)
    found = [row(name, one, by_row[one], keys, columns) for one, name in labels(sorted(by_row)).items()]
    by_id = {run.run_id: run for run in runs if is_done(run)}
    found = [replace(one, marks=told) for one, told in zip(found, marks(found, by_id), strict=True)]
    against, unclear = _baseline(found, baseline)
    if against:
        found = [one if one is against else _held_against(one, against, columns) for one in found]
    splits = ", ".join(sorted({column.split for column in columns if column.split}))
    backbone = f"{key.backbone}, weights {key.weights[:7]}" if weights else key.backbone
    return Table(
        suite=key.suite,
        heading=" · ".join(part for part in (key.suite, backbone, key.source, key.budget, splits) if part),
        backbone=backbone,
        source=key.source,
        budget=key.budget,
        split=splits,
        columns=columns,
        rows=_ranked(found, columns),
        baseline=against.label if against else None,
        notes=(*notes, *unclear),
    )


def _baseline(found: Sequence[Row], name: str | None) -> tuple[Row | None, tuple[str, ...]]:
    """The row that `name` means, and a note where it could be several."""
    fits = [one for one in found if one.label == name] or [one for one in found if one.method == name]
    if len(fits) < 2:
        return (fits[0] if fits else None), ()
    return None, (f"no baseline: {name} could be {'; '.join(one.label for one in fits)}; its label says which",)


def _held_against(one: Row, against: Row, columns: Sequence[Column]) -> Row:
    mine, theirs = one.scores, against.scores
    whole = len({column.higher_is_better for column in columns}) == 1
    return replace(
        one,
        difference=difference(mine, theirs) if whole else None,
        differences=tuple(difference([a], [b]) for a, b in zip(mine, theirs, strict=True)),
    )


def _ranked(found: list[Row], columns: tuple[Column, ...]) -> tuple[Row, ...]:
    """Best average first, then the rows without one: more tasks first, then by name."""
    sign = -1 if columns[0].higher_is_better else 1

    def printed(mean: float) -> float:
        return sign * (float(f"{mean:.{DECIMALS}g}") if sign > 0 and abs(mean) < SMALL else round(mean, DECIMALS))

    def order(one: Row) -> tuple[Any, ...]:
        average = printed(one.average.mean) if one.average else 0.0
        return one.average is None, average, sum(cell is None for cell in one.cells), one.method, one.label

    eligible = [one for one in found if one.average and one.average.n >= SEEDS]
    averages = _places([printed(one.average.mean) for one in eligible if one.average])
    by_task = [_places([printed(one.cells[i].mean) for one in eligible]) for i in range(len(columns))]  # type: ignore[union-attr]
    given = {
        one.label: {"rank": int(averages[k][0]), "average_rank": fmean(places[k][1] for places in by_task)}
        for k, one in enumerate(eligible)
    }
    return tuple(replace(one, **given.get(one.label, {})) for one in sorted(found, key=order))


def _places(values: Sequence[float]) -> list[tuple[int, float]]:
    """Place of each value, the smallest first: the best that ties share, and the mean of their places."""
    ordered = sorted(values)
    first = {value: i for i, value in reversed(list(enumerate(ordered, 1)))}
    ties = Counter(ordered)
    return [(first[value], first[value] + (ties[value] - 1) / 2) for value in values]


def _column(key: ColumnKey, keys: list[ColumnKey], own: list[Record]) -> Column:
    primary = next((run.metrics.primary for run in own if is_done(run)), None)
    twice = sum(other.task == key.task for other in keys) > 1
    return Column(
        task=short(key.task),
        cell=key.task,
        metric=primary.name if primary else "",
        split=primary.split if primary else "",
        higher_is_better=primary.higher_is_better if primary else None,
        data=f"v{key.version[:7]} {key.data_hash[:7]}" if twice else "",
        note=own[0].task.note,
    )
