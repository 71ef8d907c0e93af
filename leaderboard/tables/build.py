"""Tables from records: one row per configuration, with averages, ranks and differences from a baseline."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from bench.core.text import DECIMALS, SMALL
from bench.records.record import DoneRecord, Record, is_done
from bench.records.schema import LayerRank
from leaderboard.tables.cautions import SEEDS, row_cautions
from leaderboard.tables.grouping import (
    ColumnKey,
    RowKey,
    Seed,
    TableKey,
    column_key,
    data_source_names,
    methods_with_own_metric,
    row_key,
    row_labels,
    seed_key,
    short_task,
    table_key,
)
from leaderboard.tables.intervals import common_keys, difference, interquartile_mean
from leaderboard.tables.table import Column, Layer, Row, Scored, Stat, Table

RankField = Literal["nominal", "effective", "stable", "norm"]


def build_tables(records: Iterable[Record], *, baseline: str | None = None) -> list[Table]:
    """Build the tables of comparable rows.

    Args:
        records: of any runs, in any order. Trials of a learning-rate selection (`holdout` > 0) are left out.
        baseline: method, or label of a row, that the other rows of its table are compared with.
    """
    runs = sorted((r for r in records if not r.spec.holdout), key=lambda r: r.run_id)
    sources, own_metric = data_source_names(runs), methods_with_own_metric(runs)
    groups: dict[TableKey, list[Record]] = defaultdict(list)
    for run in runs:
        groups[table_key(run, sources, own_metric)].append(run)
    headings = Counter(key[:-1] for key in groups)
    return [
        _table(key, groups[key], weights=headings[key[:-1]] > 1, notes=_budget_note(key, groups), baseline=baseline)
        for key in sorted(groups)
    ]


def latest_runs(runs: Iterable[Record], key: Callable[[Record], Hashable]) -> tuple[list[Record], int]:
    """Keep one run per key, a finished one before others, then the newest; and count how many are left out."""
    ordered = sorted(runs, key=lambda r: (r.state == "done", r.provenance.created, r.run_id))
    best = {key(run): run for run in ordered}
    return list(best.values()), len({run.run_id for run in ordered}) - len(best)


def mean_layers(ranks_by_run: Iterable[Sequence[LayerRank]]) -> tuple[Layer, ...]:
    """Mean over runs of the ranks of each layer."""
    by_name: dict[str, list[LayerRank]] = defaultdict(list)
    for ranks in ranks_by_run:
        for layer in ranks:
            by_name[layer.layer].append(layer)
    fields = Layer._fields[1:]
    return tuple(
        Layer(name, *(fmean(getattr(layer, field) for layer in same) for field in fields))
        for name, same in by_name.items()
    )


def mean_over_layers(ranks: Iterable[LayerRank], field: RankField) -> float:
    """Mean of one quantity over layers."""
    return fmean(getattr(layer, field) for layer in ranks)


def _budget_note(key: TableKey, groups: Iterable[TableKey]) -> tuple[str, ...]:
    """A note that names the tables that differ from this one only in their budget."""
    budgets = sorted({k.budget for k in groups if k != key and k._replace(budget=key.budget) == key})
    return (f"not to be compared with the rows of {'; '.join(budgets)}: another budget",) if budgets else ()


def _table(key: TableKey, runs: list[Record], *, weights: bool, notes: tuple[str, ...], baseline: str | None) -> Table:
    """The table of `runs`. With `weights` its heading has their hash, because another heading is equal without it."""
    by_column: dict[ColumnKey, list[Record]] = defaultdict(list)
    by_row: dict[RowKey, list[Record]] = defaultdict(list)
    for run in runs:
        by_column[column_key(run)].append(run)
        by_row[row_key(run)].append(run)
    keys = sorted(by_column)
    columns = tuple(_column(column, keys, by_column[column]) for column in keys)
    rows = [_row(label, row, by_row[row], keys, columns) for row, label in row_labels(sorted(by_row)).items()]
    done = {run.run_id: run for run in runs if is_done(run)}
    rows = [replace(row, cautions=found) for row, found in zip(rows, row_cautions(rows, done), strict=True)]
    base, unclear = _baseline(rows, baseline)
    if base:
        rows = [row if row is base else _with_differences(row, base, columns) for row in rows]
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
        rows=_ranked(rows, columns),
        baseline=base.label if base else None,
        notes=(*notes, *unclear),
    )


def _column(key: ColumnKey, keys: list[ColumnKey], runs: list[Record]) -> Column:
    primary = next((run.metrics.primary for run in runs if is_done(run)), None)
    several_versions = sum(other.task == key.task for other in keys) > 1
    return Column(
        task=short_task(key.task),
        task_id=key.task,
        metric=primary.name if primary else "",
        split=primary.split if primary else "",
        higher_is_better=primary.higher_is_better if primary else None,
        data=f"v{key.version[:7]} {key.data_hash[:7]}" if several_versions else "",
        note=runs[0].task.note,
    )


def _row(label: str, key: RowKey, group: list[Record], keys: list[ColumnKey], columns: tuple[Column, ...]) -> Row:
    """The row of `group`, all runs of one configuration, without ranks, differences and cautions."""
    runs, superseded = latest_runs(group, lambda run: (column_key(run), seed_key(run)))
    done = [run for run in runs if is_done(run)]
    scored = _scored(done, keys)
    complete = _complete(scored, columns)
    failures: dict[str, list[str]] = defaultdict(list)
    failed = [run for run in runs if run.state != "done"]
    for run in sorted(failed, key=lambda r: (r.spec.task, r.spec.seed)):
        failures[run.state].append(f"{short_task(run.spec.task)} seed {run.spec.seed}")
    ranks = [run.ranks for run in done if run.ranks]

    def mean(value: Callable[[DoneRecord], float | None]) -> float | None:
        known = [found for run in done if (found := value(run)) is not None]
        return fmean(known) if known else None

    def mean_rank(field: RankField) -> float | None:
        return fmean(mean_over_layers(layers, field) for layers in ranks) if ranks else None

    effective, nominal = mean_rank("effective"), mean_rank("nominal")
    return Row(
        label=label,
        method=key[0],
        settings=dict(key[1]),
        cells=tuple(Stat.of([run.value for run in cell]) if cell else None for cell in scored),
        runs=scored,
        average=Stat.of([fmean(scores) for scores in complete]) if complete else None,
        iqm=interquartile_mean([value for scores in complete for value in scores]) if complete else None,
        trainable=mean(lambda r: r.params.trainable),
        share=mean(lambda r: r.params.trainable / max(1, r.params.total)),
        stored_bytes=mean(lambda r: r.params.stored_bytes),
        peak_memory_bytes=mean(lambda r: r.cost.peak_memory_bytes),
        rank_used=None if effective is None or nominal is None else (effective, nominal),
        stable=mean_rank("stable"),
        norm=mean_rank("norm"),
        layers=mean_layers(ranks),
        lrs=tuple(sorted({run.lr for run in done})),
        selected=group[0].spec.lr is None,
        trials=_trials(runs),
        train_s=mean(lambda r: r.cost.train_s),
        devices=tuple(sorted({run.cost.device for run in done})),
        states=dict(sorted(Counter(run.state for run in runs).items())),
        failures={state: tuple(names) for state, names in sorted(failures.items())},
        failed_ids=tuple(sorted(run.run_id for run in failed)),
        warnings=dict(sorted(Counter(text for run in done for text in set(run.warnings)).items())),
        superseded=superseded,
    )


def _scored(done: Sequence[DoneRecord], keys: list[ColumnKey]) -> tuple[tuple[Scored, ...], ...]:
    by_column: dict[ColumnKey, list[Scored]] = {key: [] for key in keys}
    for run in done:
        by_column[column_key(run)].append(Scored(seed_key(run), run.metrics.primary.value, run.run_id))
    return tuple(tuple(sorted(scores)) for scores in by_column.values())


def _complete(cells: Sequence[Sequence[Scored]], columns: Sequence[Column]) -> list[list[float]]:
    """Scores (seeds, tasks) of the seeds that have every task; none if metrics differ in direction."""
    if len({column.higher_is_better for column in columns}) != 1:
        return []
    scores: list[dict[Seed, float]] = [{run.seed: run.value for run in cell} for cell in cells]
    return [[by_seed[seed] for by_seed in scores] for seed in sorted(common_keys(scores))]


def _trials(runs: Sequence[Record]) -> int:
    """Number of runs that the selection of the learning rate took; a trial that several runs share counts once."""
    selections = [run.selection for run in runs if run.selection]
    return len({trial.run_id or (one.task, trial.lr) for one in selections for trial in one.trials})


def _baseline(rows: Sequence[Row], name: str | None) -> tuple[Row | None, tuple[str, ...]]:
    """The row that `name` means, and a note if it could mean several."""
    fits = [row for row in rows if row.label == name] or [row for row in rows if row.method == name]
    if len(fits) < 2:
        return (fits[0] if fits else None), ()
    labels = "; ".join(row.label for row in fits)
    return None, (f"no baseline: {name} could be {labels}; give the label of one of them",)


def _with_differences(row: Row, base: Row, columns: Sequence[Column]) -> Row:
    same_direction = len({column.higher_is_better for column in columns}) == 1
    return replace(
        row,
        difference=difference(row.scores, base.scores) if same_direction else None,
        differences=tuple(difference([a], [b]) for a, b in zip(row.scores, base.scores, strict=True)),
    )


def _ranked(rows: list[Row], columns: tuple[Column, ...]) -> tuple[Row, ...]:
    """Rows with their ranks: best average first; then rows without one, ordered by number of tasks and name."""
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
    return tuple(
        replace(
            row,
            rank=int(places[row.label][0]),
            average_rank=fmean(task_places[row.label][1] for task_places in by_task),
        )
        if row.label in averages
        else row
        for row in sorted(rows, key=order)
    )


def _places(values: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """Place of each value, the smallest first: the best place among ties, and the mean of their places."""
    ordered = sorted(values.values())
    first = {value: i for i, value in reversed(list(enumerate(ordered, 1)))}
    ties = Counter(ordered)
    return {name: (first[value], first[value] + (ties[value] - 1) / 2) for name, value in values.items()}
