"""One row: what the runs of a configuration amount to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Literal

from bench.records.record import DoneRecord, Record, is_done
from bench.records.schema import LayerRank
from leaderboard.tables.grouping import ColumnKey, RowKey, Seed, column_key, seed_key, short
from leaderboard.tables.intervals import middle
from leaderboard.tables.table import Column, Layer, Row, Scored, Stat


def row(label: str, key: RowKey, group: list[Record], keys: list[ColumnKey], columns: tuple[Column, ...]) -> Row:
    """The row of `group`, all runs of one configuration; places and differences are given to it later."""
    runs, superseded = _latest(group)
    done = [run for run in runs if is_done(run)]
    cells = _cells(done, keys)
    complete = _complete(cells, columns)
    failures: dict[str, list[str]] = defaultdict(list)
    failed = [run for run in runs if run.state != "done"]
    for run in sorted(failed, key=lambda r: (r.spec.task, r.spec.seed)):
        failures[run.state].append(f"{short(run.spec.task)} seed {run.spec.seed}")
    ranked = [run.ranks for run in done if run.ranks]
    memory = [peak for run in done if (peak := run.cost.peak_memory_bytes) is not None]
    return Row(
        label=label,
        method=key[0],
        settings=dict(key[1]),
        cells=tuple(Stat.of([run.value for run in cell]) if cell else None for cell in cells),
        runs=cells,
        average=Stat.of([fmean(scores) for scores in complete]) if complete else None,
        iqm=middle([value for scores in complete for value in scores]) if complete else None,
        trainable=_mean(done, lambda r: r.params.trainable),
        share=_mean(done, lambda r: r.params.trainable / max(1, r.params.total)),
        stored_bytes=_mean(done, lambda r: r.params.stored_bytes),
        peak_memory_bytes=fmean(memory) if memory else None,
        rank_used=(_over_runs(ranked, "effective"), _over_runs(ranked, "nominal")) if ranked else None,
        stable=_over_runs(ranked, "stable") if ranked else None,
        norm=_over_runs(ranked, "norm") if ranked else None,
        layers=layers(ranked),
        lrs=tuple(sorted({run.lr for run in done})),
        selected=group[0].spec.lr is None,
        trials=_trials(runs),
        train_s=_mean(done, lambda r: r.cost.train_s),
        devices=tuple(sorted({run.cost.device for run in done})),
        states=dict(sorted(Counter(run.state for run in runs).items())),
        failures={state: tuple(names) for state, names in sorted(failures.items())},
        failed_ids=tuple(sorted(run.run_id for run in failed)),
        warnings=dict(sorted(Counter(text for run in done for text in set(run.warnings)).items())),
        superseded=superseded,
    )


def _latest(group: Sequence[Record]) -> tuple[list[Record], int]:
    """One run per task and seed, a finished one before others, then the newest; and how many were left out."""
    best: dict[tuple[ColumnKey, Seed], Record] = {}
    for run in sorted(group, key=lambda r: (r.state == "done", r.provenance.created, r.run_id)):
        best[column_key(run), seed_key(run)] = run
    return list(best.values()), len({run.run_id for run in group}) - len(best)


def _cells(done: Sequence[DoneRecord], keys: list[ColumnKey]) -> tuple[tuple[Scored, ...], ...]:
    found: list[list[Scored]] = [[] for _ in keys]
    place = {key: i for i, key in enumerate(keys)}
    for run in done:
        scored = Scored(seed_key(run), run.metrics.primary.value, run.run_id)
        found[place[column_key(run)]].append(scored)
    return tuple(tuple(sorted(cell)) for cell in found)


def _complete(cells: Sequence[Sequence[Scored]], columns: Sequence[Column]) -> list[list[float]]:
    """Scores (seeds, tasks) of the seeds that have every task; none where metrics differ in direction."""
    scores: list[dict[Seed, float]] = [{run.seed: run.value for run in cell} for cell in cells]
    if len({column.higher_is_better for column in columns}) != 1:
        return []
    return [[cell[seed] for cell in scores] for seed in sorted(set.intersection(*map(set, scores)))]


def _trials(runs: Sequence[Record]) -> int:
    """Runs that choosing the learning rate took; those that several runs share count once."""
    chosen = [run.selection for run in runs if run.selection]
    return len({trial.run_id or (one.task, trial.lr) for one in chosen for trial in one.trials})


def layers(ranked: Sequence[Sequence[LayerRank]]) -> tuple[Layer, ...]:
    """Layer by layer the mean over runs, given the `ranks` of each run."""
    by_name: dict[str, list[LayerRank]] = defaultdict(list)
    for ranks in ranked:
        for one in ranks:
            by_name[one.layer].append(one)
    fields = Layer._fields[1:]
    return tuple(
        Layer(name, *(fmean(getattr(one, f) for one in same) for f in fields)) for name, same in by_name.items()
    )


def over_layers(ranks: Sequence[LayerRank], field: Literal["nominal", "effective", "stable", "norm"]) -> float:
    """Mean of a number over layers."""
    return fmean(getattr(layer, field) for layer in ranks)


def _over_runs(
    ranked: Sequence[Sequence[LayerRank]], field: Literal["nominal", "effective", "stable", "norm"]
) -> float:
    return fmean(over_layers(ranks, field) for ranks in ranked)


def _mean(done: list[DoneRecord], of: Callable[[DoneRecord], float]) -> float | None:
    return fmean(of(run) for run in done) if done else None
