"""What a folder of records amounts to: tables of comparable runs, one row per configuration, with honest averages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from bench.record import Record
from leaderboard.grouping import (
    ColumnKey,
    RowKey,
    Seed,
    TableKey,
    column_key,
    labels,
    own_metrics,
    row_key,
    seed_key,
    source_names,
    table_key,
)

DECIMALS = 3
"""Digits that are printed; rows whose averages print alike share a rank."""
SMALL = 0.01
"""Errors below it are printed, and ranked, with as many significant digits instead."""
SEEDS_FOR_RANK = 3


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean of `n` seeds and their standard deviation (n − 1 in the denominator; None for one seed)."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """Statistics of at least one value; their order changes nothing, not even the last bit."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One task, on one version of its data.

    Attributes:
        task: name without the suite.
        metric: primary metric, empty where no run of this task is done.
        split: split the metric was measured on.
        higher_is_better: direction of the metric; None where it is unknown.
        data: version and first digits of the data's hash where two columns are of the same task, else empty.
        note: the task's caveat.
    """

    task: str
    metric: str
    split: str
    higher_is_better: bool | None
    data: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration over all tasks and seeds of its table.

    Attributes:
        label: the method, with the settings that tell it from other rows of this method.
        cells: score per column; None where no run is done.
        average: over the seeds that have every task of the table; None where there is no such seed.
        rank: 1 is best; None without an average over three seeds.
        trainable: trained parameters, mean over runs.
        share: trained share of all parameters, 0 to 1, mean over runs.
        rank_used: mean effective and mean nominal rank of ΔW over layers and runs; None without a ΔW.
        norm: mean spectral norm of ΔW over layers and runs; None without a ΔW.
        lrs: learning rates really used, ascending.
        selected: whether they were chosen by validation.
        train_s: seconds of training, mean over runs.
        devices: names of the devices it ran on.
        failures: runs that are not done, as `cola seed 1`, by state.
        warnings: how many runs carry a warning, by its text.
        superseded: older runs of the same task and seed, left out.
    """

    label: str
    method: str
    cells: tuple[Stat | None, ...]
    average: Stat | None
    rank: int | None = None
    trainable: float | None
    share: float | None
    rank_used: tuple[float, float] | None
    norm: float | None
    lrs: tuple[float, ...]
    selected: bool
    train_s: float | None
    devices: tuple[str, ...]
    failures: Mapping[str, tuple[str, ...]]
    warnings: Mapping[str, int]
    superseded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that may be compared: one suite, backbone, source, budget and precision, all of them in `heading`."""

    suite: str
    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def rows(records: Iterable[Record]) -> list[Row]:
    """The rows of all tables, table after table."""
    return [row for table in tables(records) for row in table.rows]


def tables(records: Iterable[Record]) -> list[Table]:
    """Tables of comparable rows. Trials of a learning-rate selection (`holdout` > 0) are no scores and are left out."""
    runs = sorted((r for r in records if not r["spec"]["holdout"]), key=lambda r: r["run_id"])
    sources, own = source_names(runs), own_metrics(runs)
    groups: dict[TableKey, list[Record]] = defaultdict(list)
    for run in runs:
        groups[table_key(run, sources, own)].append(run)
    said = Counter(key[:-1] for key in groups)
    return [_table(key, groups[key], weights=said[key[:-1]] > 1) for key in sorted(groups)]


def _table(key: TableKey, runs: list[Record], *, weights: bool) -> Table:
    """The table of `runs`; `weights` names their hash, where another table would read the same without it."""
    keys = sorted({column_key(run) for run in runs})
    columns = tuple(_column(one, keys, runs) for one in keys)
    groups: dict[RowKey, list[Record]] = defaultdict(list)
    for run in runs:
        groups[row_key(run)].append(run)
    names = labels(sorted(groups))
    found = [_row(name, groups[one], keys, columns) for one, name in names.items()]
    splits = ", ".join(sorted({column.split for column in columns if column.split}))
    backbone = f"{key.backbone}, weights {key.weights[:7]}" if weights else key.backbone
    heading = " · ".join(part for part in (key.suite, backbone, key.source, key.budget, splits) if part)
    return Table(suite=key.suite, heading=heading, columns=columns, rows=_ranked(found, columns))


def _row(label: str, group: list[Record], keys: list[ColumnKey], columns: tuple[Column, ...]) -> Row:
    runs, superseded = _latest(group)
    done = [run for run in runs if run["state"] == "done"]
    scores: list[dict[Seed, float]] = [{} for _ in keys]
    for run in done:
        scores[keys.index(column_key(run))][seed_key(run)] = run["metrics"]["primary"]["value"]
    failures: dict[str, list[str]] = defaultdict(list)
    for run in sorted(runs, key=lambda r: (r["spec"]["task"], r["spec"]["seed"])):
        if run["state"] != "done":
            failures[run["state"]].append(f"{_short(run['spec']['task'])} seed {run['spec']['seed']}")
    ranked = [run["ranks"] for run in done if run["ranks"]]
    return Row(
        label=label,
        method=group[0]["spec"]["method"],
        cells=tuple(Stat.of(list(cell.values())) if cell else None for cell in scores),
        average=_average(scores, columns),
        trainable=_mean(done, lambda r: r["params"]["trainable"]),
        share=_mean(done, lambda r: r["params"]["trainable"] / max(1, r["params"]["total"])),
        rank_used=(_over_layers(ranked, "effective"), _over_layers(ranked, "nominal")) if ranked else None,
        norm=_over_layers(ranked, "norm") if ranked else None,
        lrs=tuple(sorted({run["lr"] for run in done})),
        selected=group[0]["spec"]["lr"] is None,
        train_s=_mean(done, lambda r: r["cost"]["train_s"]),
        devices=tuple(sorted({run["cost"]["device"] for run in done})),
        failures={state: tuple(names) for state, names in sorted(failures.items())},
        warnings=dict(sorted(Counter(text for run in done for text in set(run["warnings"])).items())),
        superseded=superseded,
    )


def _latest(group: list[Record]) -> tuple[list[Record], int]:
    """One run per task and seed, a finished one before others, then the newest; and how many were left out."""
    best: dict[tuple[Any, ...], Record] = {}
    for run in sorted(group, key=lambda r: (r["state"] == "done", r["provenance"]["created"], r["run_id"])):
        best[(*column_key(run), *seed_key(run))] = run
    return list(best.values()), len({run["run_id"] for run in group}) - len(best)


def _average(scores: list[dict[Seed, float]], columns: tuple[Column, ...]) -> Stat | None:
    """Over seeds, of the mean over tasks; only seeds that have every task, only metrics of one direction."""
    complete = sorted(set.intersection(*(set(cell) for cell in scores)))
    if not complete or len({column.higher_is_better for column in columns}) != 1:
        return None
    return Stat.of([fmean(cell[seed] for cell in scores) for seed in complete])


def _ranked(found: list[Row], columns: tuple[Column, ...]) -> tuple[Row, ...]:
    """Best average first, then the rows without one: more tasks first, then by name."""
    sign = -1 if columns[0].higher_is_better else 1

    def printed(row: Row) -> float:
        if row.average is None:
            return 0.0
        mean = row.average.mean
        return sign * (float(f"{mean:.{DECIMALS}g}") if sign > 0 and abs(mean) < SMALL else round(mean, DECIMALS))

    def order(row: Row) -> tuple[Any, ...]:
        return row.average is None, printed(row), sum(cell is None for cell in row.cells), row.method, row.label

    ranking = [printed(row) for row in found if row.average and row.average.n >= SEEDS_FOR_RANK]

    def rank(row: Row) -> int | None:
        if row.average is None or row.average.n < SEEDS_FOR_RANK:
            return None
        return 1 + sum(other < printed(row) for other in ranking)

    return tuple(replace(row, rank=rank(row)) for row in sorted(found, key=order))


def _column(key: ColumnKey, keys: list[ColumnKey], runs: list[Record]) -> Column:
    own = [run for run in runs if column_key(run) == key]
    primary = next((run["metrics"]["primary"] for run in own if run["state"] == "done"), None)
    twice = sum(other.task == key.task for other in keys) > 1
    return Column(
        task=_short(key.task),
        metric=primary["name"] if primary else "",
        split=primary["split"] if primary else "",
        higher_is_better=primary["higher_is_better"] if primary else None,
        data=f"v{key.version[:7]} {key.data_hash[:7]}" if twice else "",
        note=own[0]["task"]["note"],
    )


def _short(task: str) -> str:
    return task.partition("/")[2] or task


def _over_layers(ranked: list[list[dict[str, Any]]], field: str) -> float:
    return fmean(fmean(layer[field] for layer in layers) for layers in ranked)


def _mean(done: list[Record], of: Callable[[Record], float]) -> float | None:
    return fmean(of(run) for run in done) if done else None
