"""The leaderboard as tidy CSV: one value a line, with what it is of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from leaderboard.tables.table import Row, Table

FIELDS = (
    "suite", "backbone", "source", "budget", "split", "row", "method", "published",
    "task", "metric", "seed", "run_id", "quantity", "value",
)  # fmt: skip
"""`task`, `metric` are empty for what is of all tasks; `seed`, `run_id` for what is of all seeds."""

Line = tuple[str, str, str, str, str, Any]
"""Task, metric, seed, run id, quantity, value."""


def render(tables: Sequence[Table]) -> str:
    """Every score of every seed, and all statistics of every row.

    Numbers have all their digits; text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for table in tables:
        place = (table.suite, table.backbone, table.source, table.budget, table.split)
        for row in (*table.rows, *table.published):
            about = (row.label, row.method, row.published.source if row.published else "")
            for line in (*_scores(row, table), *_statistics(row)):
                *words, value = map(_safe, (*place, *about, *line[:-1])), line[-1]
                writer.writerow([*words[0], repr(value) if isinstance(value, float) else _safe(value)])
    return out.getvalue()


def _scores(row: Row, table: Table) -> Iterator[Line]:
    for i, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        if cell is None:
            continue
        metric = (row.published.metrics[i] if row.published else column.metric) or ""
        for run in row.runs[i] if row.runs else ():
            yield column.cell, metric, str(run.seed[0]), run.run_id, "score", run.value
        yield column.cell, metric, "", "", "mean", cell.mean
        if cell.sd is not None:
            yield column.cell, metric, "", "", "sd", cell.sd
        if cell.n:
            yield column.cell, metric, "", "", "seeds", cell.n
        if row.differences and (apart := row.differences[i]):
            yield from _known(column.cell, metric, {f"difference{k}": v for k, v in _interval(apart).items()})


def _statistics(row: Row) -> Iterator[Line]:
    effective, nominal = row.rank_used or (None, None)
    average, apart = row.average, row.difference
    values: dict[str, Any] = {
        "average": average and average.mean,
        "average_sd": average and average.sd,
        "average_seeds": average and average.n,
        "iqm": row.iqm,
        "rank": row.rank,
        "average_rank": row.average_rank,
        **({f"difference{k}": v for k, v in _interval(apart).items()} if apart else {}),
        "trained_parameters": row.trainable,
        "trained_share": row.share,
        "stored_bytes": row.stored_bytes,
        "train_seconds": row.train_s,
        "peak_memory_bytes": row.peak_memory_bytes,
        "effective_rank": effective,
        "stable_rank": row.stable,
        "nominal_rank": nominal,
        "spectral_norm": row.norm,
        "selection_trials": None if row.published else row.trials,
        **{f"runs_{state}": count for state, count in row.states.items()},
        **{f"mark_{mark.code}": mark.text for mark in row.marks},
    }
    yield from _known("", "", values)


def _interval(apart: Any) -> dict[str, Any]:
    return {
        "": apart.mean,
        "_low": apart.low,
        "_high": apart.high,
        "_iqm": apart.iqm,
        "_iqm_low": apart.iqm_low,
        "_iqm_high": apart.iqm_high,
    }


def _known(task: str, metric: str, values: dict[str, Any]) -> Iterator[Line]:
    yield from ((task, metric, "", "", name, value) for name, value in values.items() if value is not None)


def _safe(value: Any) -> str:
    """Text on one line that no spreadsheet runs."""
    text = " ".join(str(value).split()).encode("utf-8", "replace").decode()
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not isinstance(value, int) else text
