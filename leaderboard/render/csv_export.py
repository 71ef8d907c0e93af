"""The leaderboard as CSV in long format: one value per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from bench.core.text import printable
from leaderboard.tables.intervals import Difference
from leaderboard.tables.table import Row, Table

FIELDS = (
    "suite", "backbone", "source", "budget", "split", "row", "method", "published",
    "task", "metric", "seed", "run_id", "quantity", "value",
)  # fmt: skip
"""`task` and `metric` are empty for a value over all tasks, `seed` and `run_id` for a value over all seeds."""

BEST = "best_chosen_on_dev"
"""Quantity of the best evaluation: its name says what a note below a table says."""

Value = str | float | None
Line = tuple[str, str, str, str, str, Value]
"""Task, metric, seed, run id, quantity, value."""


def render(tables: Sequence[Table]) -> str:
    """Render every score of every seed, and all statistics of every row.

    Numbers have all their digits. Text that a spreadsheet would read as a formula begins with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for table in tables:
        of_table = (table.suite, table.backbone, table.source, table.budget, table.split)
        for row in (*table.rows, *table.published):
            of_row = (row.label, row.method, row.published.source if row.published else "")
            for *names, value in (*_scores(row, table), *_known("", "", _statistics(row, table))):
                text = repr(value) if isinstance(value, float) else _safe(value)
                writer.writerow([*map(_safe, (*of_table, *of_row, *names)), text])
    return out.getvalue()


def _scores(row: Row, table: Table) -> Iterator[Line]:
    metrics = row.published.metrics if row.published else [column.metric for column in table.columns]
    columns = zip(table.columns, metrics, row.cells, row.best, row.runs, row.differences, row.leads, strict=True)
    for column, metric, cell, best, runs, paired, leads in columns:
        task = f"{column.task_id} {column.data}".rstrip()
        for run in runs:
            of_run = task, metric or "", str(run.seed[0]), run.run_id
            yield *of_run, "score", run.value
            if table.best and run.best:
                yield *of_run, BEST, run.best.value
                yield *of_run, f"{BEST}_step", run.best.step
        if cell:
            values = {
                "mean": cell.mean,
                "sd": cell.sd,
                "seeds": cell.n or None,
                **_difference(paired),
                "leads": leads or None,
            }
            yield from _known(task, metric or "", values)
        if table.best and best:
            yield from _known(task, metric or "", {f"{BEST}_mean": best.mean, f"{BEST}_sd": best.sd})


def _statistics(row: Row, table: Table) -> dict[str, Value]:
    average, best = row.average, row.best_average if table.best else None
    return {
        "average": average and average.mean,
        "average_sd": average and average.sd,
        "average_seeds": average and average.n,
        f"{BEST}_average": best and best.mean,
        f"{BEST}_average_sd": best and best.sd,
        "iqm": row.iqm,
        "average_leads": row.average_leads or None,
        "rank": row.rank,
        "average_rank": row.average_rank,
        **_difference(row.difference),
        "trained_parameters": row.trainable,
        "trained_share": row.share,
        "stored_bytes": row.stored_bytes,
        "train_seconds": row.train_s,
        "peak_memory_bytes": row.peak_memory_bytes,
        "rank_needed": row.needed,
        "rank_needed_above": row.needed_above,
        "effective_rank": row.effective,
        "stable_rank": row.stable,
        "nominal_rank": row.nominal,
        "spectral_norm": row.norm,
        "selection_trials": None if row.published else row.trials,
        **{f"runs_{state}": count for state, count in row.states.items()},
        **{f"caution_{caution.code}": caution.text for caution in row.cautions},
    }


def _difference(paired: Difference | None) -> dict[str, Value]:
    if paired is None:
        return {}
    names = ("low", "high", "iqm", "iqm_low", "iqm_high", "examples")
    return {"difference": paired.mean, **{f"difference_{name}": getattr(paired, name) for name in names}}


def _known(task: str, metric: str, values: Mapping[str, Value]) -> Iterator[Line]:
    yield from ((task, metric, "", "", name, value) for name, value in values.items() if value is not None)


def _safe(value: Value) -> str:
    """Text on one line that a spreadsheet does not read as a formula."""
    text = " ".join(printable(str(value)).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not isinstance(value, int) else text
