"""The leaderboard as plain JSON values: what the page shows, and `--format json`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from bench.core.errors import BenchError
from bench.records.record import Record
from bench.records.schema import LossPoint, PrimaryMetric
from leaderboard.tables.table import Column, Row, Stat, Table

POINTS = 60
"""So many points at most of a curve."""
BINS = 30
"""So many of a loss: it is that of single batches, of which a point is the mean over some."""


def board(tables: Sequence[Table], records: Iterable[Record], problems: Iterable[BenchError] = ()) -> dict[str, Any]:
    """Tables, the runs behind them, and what could not be read; the same for the same records in any order."""
    by_id = {run.run_id: run for run in records}
    runs = {
        run_id: _run(by_id[run_id], i, j, at)
        for i, table in enumerate(tables)
        for j, row in enumerate(table.rows)
        for run_id, at in _ids(row)
    }
    return {
        "title": "lowrank-bench leaderboard",
        "problems": sorted(str(problem) for problem in problems),
        "trials": sum(bool(run.spec.holdout) for run in by_id.values()),
        "notes": [],
        "tables": [_table(table) for table in tables],
        "runs": dict(sorted(runs.items())),
    }


def text(made: dict[str, Any]) -> str:
    """The board as JSON for a file."""
    return json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _ids(row: Row) -> list[tuple[str, int | None]]:
    """Every run of a row, and the column of its score; None for one without."""
    scored: list[tuple[str, int | None]] = [(run.run_id, i) for i, cell in enumerate(row.runs) for run in cell]
    return [*scored, *((run_id, None) for run_id in row.failed_ids)]


def _table(table: Table) -> dict[str, Any]:
    return {
        "suite": table.suite,
        "heading": table.heading,
        "backbone": table.backbone,
        "source": table.source,
        "budget": table.budget,
        "split": table.split,
        "baseline": table.baseline,
        "notes": list(table.notes),
        "columns": [asdict(column) for column in table.columns],
        "rows": [_row(row, table.columns) for row in (*table.rows, *table.published)],
    }


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    published = row.published
    effective, nominal = row.rank_used or (None, None)
    return {
        "label": row.label,
        "method": row.method,
        "settings": dict(row.settings),
        "published": None
        if published is None
        else {"source": published.source, "arxiv": published.arxiv, "note": published.note},
        "rank": row.rank,
        "average": _stat(row.average),
        "complete": [sum(cell is not None for cell in row.cells), len(row.cells)],
        "iqm": row.iqm,
        "average_rank": row.average_rank,
        "difference": asdict(row.difference) if row.difference else None,
        "cells": [_cell(row, i, column) for i, column in enumerate(columns)],
        "trainable": row.trainable,
        "share": row.share,
        "stored_bytes": row.stored_bytes,
        "train_s": row.train_s,
        "peak_memory_bytes": row.peak_memory_bytes,
        "nominal": nominal,
        "effective": effective,
        "stable": row.stable,
        "norm": row.norm,
        "layers": [list(layer) for layer in row.layers],
        "lrs": list(row.lrs),
        "selected": row.selected,
        "trials": row.trials,
        "states": dict(row.states),
        "devices": list(row.devices),
        "marks": [mark._asdict() for mark in row.marks],
        "notes": [f"{count} × {warning}" for warning, count in row.warnings.items()]
        + ([f"{row.superseded} older runs of the same task and seed left out"] if row.superseded else []),
    }


def _cell(row: Row, i: int, column: Column) -> dict[str, Any] | None:
    stat = row.cells[i]
    if stat is None:
        return None
    apart = row.differences[i] if row.differences else None
    return {
        **asdict(stat),
        "metric": row.published.metrics[i] if row.published else column.metric,
        "runs": [[run.seed[0], run.value, run.run_id] for run in (row.runs[i] if row.runs else ())],
        "difference": asdict(apart) if apart else None,
    }


def _stat(stat: Stat | None) -> dict[str, Any] | None:
    return asdict(stat) if stat else None


def _run(run: Record, table: int, row: int, column: int | None) -> dict[str, Any]:
    spec, cost, error = run.spec, run.cost, run.error
    primary = run.metrics.primary if run.metrics and column is not None else None
    return {
        "table": table,
        "row": row,
        "task": spec.task,
        "seed": spec.seed,
        "state": run.state,
        "value": primary.value if primary else None,
        "lr": run.lr,
        "command": shlex.join(run.provenance.command),
        "error": error.what if error else None,
        "warnings": list(run.warnings),
        "created": run.provenance.created,
        "git": run.provenance.git,
        "device": cost.device if cost else None,
        "train_s": cost.train_s if cost else None,
        "curve": _losses(run.curve),
        "rank_curve": _rank_curve(run),
        "evaluations": _evaluations(run, primary),
    }


def thinned(points: list[Any], most: int = POINTS) -> list[Any]:
    """At most `most` points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _losses(curve: Sequence[LossPoint]) -> list[Any]:
    """Mean loss of as many neighbouring batches as it takes, at the last one's step."""
    count = min(BINS, len(curve))
    ends = [round((i + 1) * len(curve) / count) for i in range(count)]
    parts = [curve[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [[part[-1].step, _short(sum(point.loss for point in part) / len(part))] for part in parts]


def _rank_curve(run: Record) -> list[Any]:
    """Course of the mean effective rank of ΔW."""
    for series in run.spectra.series if run.spectra else ():
        if series.of == "updates":
            pairs = zip(series.steps, series.effective, strict=False)
            return thinned([[step, _short(value)] for step, value in pairs if value is not None])
    return []


def _evaluations(run: Record, primary: PrimaryMetric | None) -> list[Any]:
    """The primary metric on the way, where it is one that was taken there."""
    if primary is None:
        return []
    split, name = primary.split, primary.name
    found = [(row.step, row.metrics.get(split, {}).get(name)) for row in run.evaluations]
    return thinned([[step, _short(value)] for step, value in found if value is not None])


def _short(value: float) -> float:
    """Five significant digits: a curve is looked at."""
    return float(f"{value:.5g}")
