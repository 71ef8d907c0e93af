"""`bench list runs`: a line for each run of a folder, chosen and sorted by any option, with the options that differ."""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.output import emit, emit_each, note_reading, warn
from bench.core.errors import BenchError, UsageError, did_you_mean
from bench.core.text import format_score, table

if TYPE_CHECKING:
    from bench.records.record import Record
    from bench.records.views import Line

SUMMED = 100
"""More runs than these are counted by state below the list."""
MOST_WITH_OPTIONS = 2000
"""Of more runs the options are not compared unless some are chosen or sorted by: it would take ten times as long."""
BUDGET = ("max_steps", "epochs", "batch_size", "train_samples", "precision")
"""Fields of a specification that are shown as options are where runs differ in them."""


def list_runs(out: Path, where: Sequence[str], sort: Sequence[str], *, reverse: bool, as_json: bool) -> None:
    """Print the runs of a folder.

    Args:
        where: conditions that must hold, as `bench.cli.leaderboard` takes them.
        sort: names of options, fields of a record or columns, the first one first; runs that lack one come last.
        reverse: the largest first.

    Raises:
        UsageError: no run matches, or no run has what is sorted by.
    """
    if as_json and not where and not sort:
        emit_each(_all_json(out))
        return
    records = None if as_json else _few_or_chosen(out, where, sort)
    if records is None and not as_json:
        _print_lines(out)
        return
    from bench.records.record import load_all

    if records is None:
        records, problems = load_all(out)
        for problem in problems:
            warn(problem)
    from leaderboard.tables.filters import filter_runs

    kept = _sorted(filter_runs(records, where=where), sort, reverse=reverse)
    if as_json:
        emit([record.to_json() for record in kept])
        return
    from bench.records.views import line

    _print([line(record) for record in kept], _differing(kept), out)


def _few_or_chosen(out: Path, where: Sequence[str], sort: Sequence[str]) -> list[Record] | None:
    """The records; None where there are too many to compare their options, and nothing asks for these."""
    from bench.records.index import load_slim
    from bench.records.record import load_all
    from bench.records.views import NOT_IN_TABLES
    from leaderboard.tables.filters import parse

    asked = {name.partition(".")[0] for name in (*(parse(text).name for text in where), *sort)}
    if not asked and _many(out):
        return None
    records, problems = load_all(out) if asked & NOT_IN_TABLES else load_slim(out, note_reading(out))
    for problem in problems:
        warn(problem)
    return records


def _many(out: Path) -> bool:
    with suppress(OSError), os.scandir(out) as entries:  # reading the records reports what is wrong
        return next(islice(entries, MOST_WITH_OPTIONS, None), None) is not None
    return False


def _sorted(records: list[Record], names: Sequence[str], *, reverse: bool) -> list[Record]:
    for name in reversed(names):
        values = {id(record): _value(record, name) for record in records}
        if records and not any(value is not None for value in values.values()):
            known = sorted({*COLUMNS, *records[0].spec.options.flat()})
            todo = did_you_mean(name, known) or "Give an option as --set takes it, or a path such as cost.train_s."
            raise UsageError(f"--sort: no run has '{name}'", f"such as {', '.join(known[:20])}", todo)
        has, lacks = ([r for r in records if (values[id(r)] is None) == lacking] for lacking in (False, True))
        has.sort(key=lambda record: _order(values[id(record)]), reverse=reverse)
        records = [*has, *lacks]
    return records


COLUMNS = {"run": "run_id", "score": "metrics.primary.value", "backbone": "backbone.name"}
"""Columns of the list that are called otherwise in a record."""


def _value(record: Record, name: str) -> str | int | float | None:
    from leaderboard.tables.filters import lookup

    value = lookup(record, COLUMNS.get(name, name))
    return value if isinstance(value, str | int | float) else None


def _order(value: str | int | float | None) -> tuple[bool, float, str]:
    """Numbers before texts."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value or 0), "")


def _differing(records: Sequence[Record]) -> list[str]:
    """For each run the options, and the budget, in which runs of its method differ: `rank=4, max_steps=200`."""
    from leaderboard.tables.grouping import format_value

    settings = [_settings(record) for record in records]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    shown = [{name: format_value(value) for name, value in of_run.items()} for of_run in settings]
    for record, of_run in zip(records, shown, strict=True):
        for name, value in of_run.items():
            values[record.spec.method, name].add(value)

    def text(record: Record, of_run: Mapping[str, str]) -> str:
        differing = (pair for pair in of_run.items() if len(values[record.spec.method, pair[0]]) > 1)
        return ", ".join(f"{name.removeprefix('method.')}={value}" for name, value in differing)

    return [text(record, of_run) for record, of_run in zip(records, shown, strict=True)]


def _settings(record: Record) -> dict[str, Any]:
    budget = {name: value for name in BUDGET if (value := getattr(record.spec, name)) is not None}
    options = {name: value for name, value in record.spec.options.flat().items() if not name.startswith("runtime.")}
    return budget | options


def _print_lines(out: Path) -> None:
    from bench.records.index import load_lines

    runs, problems = load_lines(out, note_reading(out))
    for problem in problems:
        warn(problem)
    _print(runs, [], out)


def _print(runs: Sequence[Line], options: Sequence[str], out: Path) -> None:
    header = ("run", "state", "method", "task", "backbone", "seed", "lr", "score")
    rows = [_row(run) for run in runs]
    if any(options):
        header, rows = (*header, "options that differ"), [(*row, more) for row, more in zip(rows, options, strict=True)]
    print(table(header, rows) if runs else f"no runs in {out}")
    if len(runs) > SUMMED:
        states = ", ".join(f"{count:,} {state}" for state, count in Counter(run.state for run in runs).most_common())
        print(f"{len(runs):,} runs: {states}", file=sys.stderr)


def _all_json(out: Path) -> Iterator[dict[str, Any]]:
    """The whole records, one at a time; warns of those that cannot be read."""
    from bench.records.record import iterate

    for one in iterate(out):
        if isinstance(one, BenchError):
            warn(one)
        else:
            yield one.to_json()


def _row(run: Line) -> tuple[str, ...]:
    score = f"{run.metric} {format_score(run.value, run.higher_is_better)}" if run.metric is not None else "–"
    lr = "–" if run.lr is None else f"{run.lr:g}"
    task = run.task + (" (trial)" if run.trial else "")  # of --select, scored on held-out train examples
    return (run.run_id, run.state, run.method, task, run.backbone, str(run.seed), lr, score)
