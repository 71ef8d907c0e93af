"""The leaderboard as JSON values, for the page and for `--format json`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from typing import TypeVar

from bench.core.errors import BenchError
from bench.core.text import dump_json
from bench.records.course import course
from bench.records.record import Record, is_done
from bench.records.results import LossPoint
from leaderboard.tables.intervals import Difference
from leaderboard.tables.table import Row, Scored, Stat, Table

JsonObject = Mapping[str, object]
Point = TypeVar("Point")

POINTS, LOSS_POINTS = 60, 30
"""Maximum number of points of a curve, and of a loss curve, whose points are means over neighbouring batches."""


def leaderboard_json(
    tables: Sequence[Table], records: Iterable[Record], problems: Iterable[BenchError] = ()
) -> JsonObject:
    """Tables, their runs, and the records that could not be read. The order of `records` does not matter."""
    by_id = {run.run_id: run for run in records}
    runs = {
        run_id: _run(by_id[run_id], i, j)
        for i, table in enumerate(tables)
        for j, row in enumerate(table.rows)
        for run_id in row.run_ids
    }
    return {
        "title": "lowrank-bench leaderboard",
        "problems": sorted(str(problem) for problem in problems),
        "trials": sum(bool(run.spec.holdout) for run in by_id.values()),
        "notes": [],
        "tables": [_table(table) for table in tables],
        "runs": dict(sorted(runs.items())),
    }


def dump(data: JsonObject) -> str:
    return dump_json(data) + "\n"


def _table(table: Table) -> JsonObject:
    names = ("suite", "heading", "backbone", "source", "budget", "split", "baseline", "best", "notes")
    return {name: getattr(table, name) for name in names} | {
        "columns": [asdict(column) for column in table.columns],
        "rows": [_row(row, table) for row in (*table.rows, *table.published)],
    }


def _row(row: Row, table: Table) -> JsonObject:
    notes = [f"{count} × {warning}" for warning, count in row.warnings.items()]
    if row.superseded:
        notes.append(f"{row.superseded} older runs of the same task and seed left out")
    metrics = row.published.metrics if row.published else [column.metric for column in table.columns]
    best, best_average = (row.best, row.best_average) if table.best else ((None,) * len(row.cells), None)
    left_out = {"runs", "differences", "nominal", "effective", "failures", "failed_ids", "warnings", "superseded"}
    left_out |= {"candidates", "rates", "rates_alone", "leads", "chance"}
    values = asdict(replace(row, runs=(), differences=(), layers=()))
    return {name: value for name, value in values.items() if name not in left_out} | {
        "complete": [sum(cell is not None for cell in row.cells), len(row.cells)],
        "cells": [*map(_cell, row.cells, best, metrics, row.runs, row.differences, row.leads)],
        "learned_nothing": row.learned_nothing,
        "nominal": row.nominal,
        "effective": row.effective,
        "layers": [astuple(layer) for layer in row.layers],
        "notes": notes,
        **({"best_average": asdict(best_average)} if best_average else {}),
    }


def _cell(
    stat: Stat | None,
    best: Stat | None,
    metric: str | None,
    runs: Sequence[Scored],
    paired: Difference | None,
    leads: bool,
) -> JsonObject | None:
    if stat is None:
        return None
    return asdict(stat) | {
        "metric": metric,
        "runs": [[run.seed[0], run.value, run.run_id] for run in runs],
        "difference": asdict(paired) if paired else None,
        "leads": leads,
        **({"best": asdict(best)} if best else {}),
    }


def _run(run: Record, table: int, row: int) -> JsonObject:
    spec, cost = run.spec, run.cost
    primary = run.metrics.primary if is_done(run) else None
    return {
        "table": table,
        "row": row,
        "task": spec.task,
        "seed": spec.seed,
        "state": run.state,
        "value": primary.value if primary else None,
        "lr": run.lr,
        "command": shlex.join(run.provenance.command),
        "error": run.error.what if run.error else None,
        "warnings": list(run.warnings),
        "created": run.provenance.created,
        "git": run.provenance.git,
        "device": cost.device if cost else None,
        "train_s": cost.train_s if cost else None,
        "curve": _losses(run.curve),
        "rank_curve": _rank_curve(run),
        "truncation": [[point.k, _short(point.value)] for point in run.truncation.points] if run.truncation else [],
        "evaluations": subsample([[step, _short(value)] for step, value in course(run)], POINTS),
    }


def subsample(points: list[Point], most: int) -> list[Point]:
    """At most `most` points, evenly spaced, with the first and the last."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _losses(curve: Sequence[LossPoint]) -> list[list[float]]:
    """Mean loss over neighbouring batches, at the step of the last of them."""
    count = min(LOSS_POINTS, len(curve))
    ends = [round((i + 1) * len(curve) / count) for i in range(count)]
    parts = [curve[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [[part[-1].step, _short(sum(point.loss for point in part) / len(part))] for part in parts]


def _rank_curve(run: Record) -> list[list[float]]:
    """Mean effective rank of ΔW over training."""
    for series in run.spectra.series if run.spectra else ():
        if series.of == "updates":
            pairs = zip(series.steps, series.effective, strict=False)
            return subsample([[step, _short(value)] for step, value in pairs if value is not None], POINTS)
    return []


def _short(value: float) -> float:
    """Five significant digits, enough for a plot."""
    return float(f"{value:.5g}")
