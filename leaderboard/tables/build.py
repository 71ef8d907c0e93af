"""Tables from records: one row per configuration, with averages, ranks and differences from a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from math import inf, prod
from statistics import fmean, median
from typing import Literal

from bench.records import course
from bench.records.record import DoneRecord, Record, is_done
from bench.records.schema import StoredSpec
from leaderboard.tables.cautions import rates_note, row_cautions
from leaderboard.tables.examples import Examples
from leaderboard.tables.grouping import (
    ColumnKey,
    RowKey,
    TableKey,
    by_row,
    by_table,
    column_keys,
    group_by,
    seed_key,
    short_task,
)
from leaderboard.tables.intervals import common_keys
from leaderboard.tables.standing import Comparer, ranked, with_differences
from leaderboard.tables.table import Column, Layer, Row, Scored, Stat, Table, average_of, by_seed

RankField = Literal["nominal", "effective", "stable", "norm"]
RANK_FIELDS: tuple[RankField, ...] = ("nominal", "effective", "stable", "norm")
BEST = (
    "best: the best evaluation during training, – if there was none. It is chosen on the very examples that it is "
    "scored on, so it is optimistic, and the more so the more evaluations there were. Ranks and differences are of the "
    "last scores"
)
"""Note on the best evaluations."""
Quantity = Callable[[DoneRecord], float | None]
"""A number of a run; None if it is unknown."""


def build_tables(
    records: Iterable[Record], *, baseline: str | None = None, best: bool = False, examples: Examples | None = None
) -> list[Table]:
    """Build the tables of comparable rows.

    Args:
        records: of any runs, in any order. Trials of a learning-rate selection (`holdout` > 0) are left out.
        baseline: method, or label of a row, that the other rows of its table are compared with.
        best: show the best evaluation during training beside every score.
        examples: what runs kept of their outputs; without it intervals are over seeds alone.
    """
    runs = sorted((r for r in records if not r.spec.holdout), key=lambda r: r.run_id)
    groups, compare = by_table(runs), Comparer(runs, examples or Examples())
    headings = Counter(key[:-1] for key in groups)
    tables = [
        _table(
            key,
            groups[key],
            compare,
            weights=headings[key[:-1]] > 1,
            notes=_budget_note(key, groups),
            baseline=baseline,
        )
        for key in sorted(groups)
    ]
    return [replace(table, best=True, notes=(*table.notes, BEST)) for table in tables] if best else tables


def latest_runs(runs: Iterable[Record], key: Callable[[Record], Hashable]) -> tuple[list[Record], int]:
    """Keep one run per key, a finished one before others, then the newest; and count how many are left out."""
    ordered = sorted(runs, key=lambda r: (r.state == "done", r.provenance.created, r.run_id))
    best = {key(run): run for run in ordered}
    return list(best.values()), len({run.run_id for run in ordered}) - len(best)


def mean_over_runs(runs: Iterable[DoneRecord], quantity: Quantity) -> float | None:
    """Mean over the runs for which the quantity is known."""
    known = [value for run in runs if (value := quantity(run)) is not None]
    return fmean(known) if known else None


def mean_rank(field: RankField, layers: Collection[str] | None = None) -> Quantity:
    """The mean of a field of `LayerRank` over the adapted layers of a run, or over those in `layers`."""

    def mean(run: DoneRecord) -> float | None:
        values = [getattr(rank, field) for rank in run.ranks if layers is None or rank.layer in layers]
        return fmean(values) if values else None

    return mean


def median_rank_needed(runs: Iterable[DoneRecord]) -> tuple[float | None, int | None]:
    """The median of the rank needed over the runs that have one, or the rank that it is above; the other is None."""
    cuts = [run.truncation for run in runs if run.truncation]
    if not cuts:
        return None, None
    middle = median(inf if cut.rank_needed is None else cut.rank_needed for cut in cuts)
    if middle < inf:
        return middle, None
    return None, max(cut.points[-2].k for cut in cuts if cut.rank_needed is None)


def mean_layers(runs: Iterable[Record]) -> tuple[Layer, ...]:
    """Mean over runs of the ranks of each layer."""
    by_name = group_by((rank for run in runs for rank in run.ranks), lambda rank: rank.layer)
    return tuple(
        Layer(name, *(fmean([getattr(rank, field) for rank in ranks]) for field in RANK_FIELDS))
        for name, ranks in by_name.items()
    )


def _budget_note(key: TableKey, groups: Iterable[TableKey]) -> tuple[str, ...]:
    """A note that names the tables that differ from this one only in their budget."""
    budgets = sorted({k.budget for k in groups if k != key and k._replace(budget=key.budget) == key})
    return (f"not to be compared with the rows of {'; '.join(budgets)}: another budget",) if budgets else ()


def _table(
    key: TableKey,
    runs: list[Record],
    compare: Comparer,
    *,
    weights: bool,
    notes: tuple[str, ...],
    baseline: str | None,
) -> Table:
    """The table of `runs`. With `weights` its heading has their hash, because another heading is equal without it."""
    key_of = column_keys(runs)
    by_column = group_by(runs, key_of)
    keys = sorted(by_column)
    columns = tuple(_column(column, keys, by_column[column]) for column in keys)
    averaged = len({column.higher_is_better for column in columns}) == 1  # else the metrics differ in direction
    rows = [_row(label, row, group, keys, key_of, averaged=averaged) for label, row, group in by_row(runs)]
    rows = [
        replace(row, chance=tuple(compare.chance([run.record for run in cell]) for cell in row.runs)) for row in rows
    ]
    rows = [replace(row, cautions=cautions) for row, cautions in zip(rows, row_cautions(rows, columns), strict=True)]
    base, unclear = _baseline(rows, baseline)
    if base:
        rows = [row if row is base else with_differences(row, base, compare, averaged=averaged) for row in rows]
    splits = ", ".join(sorted({column.split for column in columns if column.split}))
    backbone = f"{key.backbone}, weights {key.weights[:7]}" if weights else key.backbone
    return Table(
        suite=key.suite,
        heading=" · ".join(filter(None, (key.suite, backbone, key.source, key.budget, splits))),
        backbone=backbone,
        source=key.source,
        budget=key.budget,
        split=splits,
        columns=columns,
        rows=ranked(rows, columns, compare),
        baseline=base.label if base else None,
        notes=(*notes, *unclear, *rates_note(rows), *compare.note(rows)),
    )


def _column(key: ColumnKey, keys: list[ColumnKey], runs: list[Record]) -> Column:
    done = [run.metrics for run in runs if is_done(run)]
    primary = done[0].primary if done else None
    shares = [metrics.majority[key.split] for metrics in done if key.split in metrics.majority]
    is_accuracy = "accuracy" in key.metric.split("+")
    largest = f"the largest class has {100 * shares[0]:.1f} % of {key.split}" if shares and is_accuracy else ""
    task = key.data.task
    others = [other for other in keys if other.data.task == task]
    marks = {
        f"v{key.data.version[:7]} {key.data.data_hash[:7]}": {other.data for other in others},
        f"on {key.split}": {other.split for other in others},
        f"n={key.n}": {other.n for other in others},
        f"{'higher' if key.higher_is_better else 'lower'} is better": {other.higher_is_better for other in others},
    }
    return Column(
        task=short_task(task),
        task_id=task,
        metric=primary.name if primary else "",
        split=primary.split if primary else "",
        higher_is_better=primary.higher_is_better if primary else None,
        data=" ".join(mark for mark, different in marks.items() if len(different) > 1),
        note="; ".join(filter(None, (runs[0].task.note, largest))),
    )


def _row(
    label: str,
    key: RowKey,
    group: list[Record],
    columns: list[ColumnKey],
    key_of: Callable[[Record], ColumnKey],
    *,
    averaged: bool,
) -> Row:
    """The row of `group`, all runs of one configuration, without ranks, differences and cautions."""
    runs, superseded = latest_runs(group, lambda run: (key_of(run), seed_key(run)))
    done = [run for run in runs if is_done(run)]
    failed = sorted((run for run in runs if run.state != "done"), key=lambda r: (r.spec.task, r.spec.seed))
    failures = group_by(failed, lambda run: run.state)
    cells: dict[ColumnKey, list[Scored]] = {column: [] for column in columns}
    for run in done:
        batch = round(run.cost.samples / max(1, run.cost.steps), 1)
        score = run.metrics.primary.value
        scored = Scored(seed_key(run), score, run.run_id, run.cost.steps, batch, course.best(run), run)
        cells[key_of(run)].append(scored)
    by_column = tuple(tuple(sorted(cell)) for cell in cells.values())
    scores = by_seed(by_column)
    complete = common_keys(scores) if averaged else ()
    average, iqm = average_of(scores, complete) if complete else (None, None)
    needed, above = median_rank_needed(done)
    return Row(
        label=label,
        method=key.method,
        settings=dict(key.settings),
        cells=tuple(Stat.of([run.value for run in cell]) if cell else None for cell in by_column),
        runs=by_column,
        average=average,
        iqm=iqm,
        differences=(None,) * len(columns),
        trainable=mean_over_runs(done, lambda r: r.params.trainable),
        share=mean_over_runs(done, lambda r: r.params.trainable / max(1, r.params.total)),
        stored_bytes=mean_over_runs(done, lambda r: r.params.stored_bytes),
        peak_memory_bytes=mean_over_runs(done, lambda r: r.cost.peak_memory_bytes),
        needed=needed,
        needed_above=above,
        nominal=mean_over_runs(done, mean_rank("nominal")),
        effective=mean_over_runs(done, mean_rank("effective")),
        stable=mean_over_runs(done, mean_rank("stable")),
        norm=mean_over_runs(done, mean_rank("norm")),
        layers=mean_layers(done),
        lrs=tuple(sorted({run.lr for run in done})),
        selected=group[0].spec.lr is None,
        at_edge=any(run.selection and run.selection.edge for run in done),
        trials=_trials(runs),
        candidates=_candidates(group[0].spec),
        rates=tuple(group[0].spec.select),
        rates_alone=not group[0].spec.space and not group[0].spec.trials,
        train_s=mean_over_runs(done, lambda r: r.cost.train_s),
        devices=tuple(sorted({run.cost.device for run in done})),
        states=dict(sorted(Counter(run.state for run in runs).items())),
        failures={
            state: tuple(f"{short_task(run.spec.task)} seed {run.spec.seed}" for run in failures[state])
            for state in sorted(failures)
        },
        failed_ids=tuple(sorted(run.run_id for run in failed)),
        warnings=dict(sorted(Counter(text for run in done for text in set(run.warnings)).items())),
        superseded=superseded,
        group_ids=tuple(dict.fromkeys(run.record.group_id for cell in by_column for run in cell)),
    )


def _candidates(spec: StoredSpec) -> int:
    """Number of trials that a selection was to make: those asked for, or one for each combination of the candidates."""
    sizes = [len(values) for values in (*([spec.select] if spec.select else []), *spec.space.values())]
    return spec.trials or (prod(sizes) if sizes else 0)


def _trials(runs: Sequence[Record]) -> int:
    """Number of runs that the selection took; a trial that several runs share counts once."""
    selections = [run.selection for run in runs if run.selection]
    return len(
        {
            trial.run_id or (chosen.task, trial.lr, *trial.options.values())
            for chosen in selections
            for trial in chosen.trials
        }
    )


def _baseline(rows: Sequence[Row], name: str | None) -> tuple[Row | None, tuple[str, ...]]:
    """The row that `name` means, and a note if it could mean several."""
    fits = [row for row in rows if row.label == name] or [row for row in rows if row.method == name]
    if len(fits) < 2:
        return (fits[0] if fits else None), ()
    labels = "; ".join(row.label for row in fits)
    return None, (f"no baseline: {name} could be {labels}; give the label of one of them",)
