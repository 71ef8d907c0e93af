"""Scores from papers, shown below the measured ones of the same backbone and tasks. They are cited and have no rank."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import NamedTuple

import msgspec

from bench.records.record import Record
from leaderboard.tables.grouping import group_by
from leaderboard.tables.table import Published, Row, Stat, Table


class PublishedScore(NamedTuple):
    """One line of published.csv, with its columns in order; the score `value` is a fraction."""

    source: str
    arxiv: str
    note: str
    model: str
    method: str
    settings: str
    params: str
    train_samples: str
    task: str
    metric: str
    value: float


@cache
def published_scores() -> tuple[PublishedScore, ...]:
    text = resources.files("leaderboard.tables").joinpath("published.csv").read_text(encoding="utf-8")
    _, *lines = csv.reader(text.splitlines())
    return msgspec.convert(lines, tuple[PublishedScore, ...], strict=False)


def models() -> list[str]:
    """Backbones with published scores."""
    return sorted({score.model for score in published_scores()})


def model_of(backbone: str) -> str | None:
    """Name of a backbone in published.csv: `microsoft/deberta-v3-base` is DeBERTaV3-base."""
    name = backbone.rstrip("/").rpartition("/")[2].lower().replace("deberta-v3", "debertav3")
    return next((model for model in models() if model.lower() == name), None)


def with_published(tables: Sequence[Table], records: Iterable[Record]) -> list[Table]:
    """Add the published scores for its backbone, tasks and number of training examples to each table."""
    by_id = {run.run_id: run for run in records}
    return [replace(table, published=_rows(table, by_id)) for table in tables]


def _rows(table: Table, records: Mapping[str, Record]) -> tuple[Row, ...]:
    first = records[table.rows[0].run_ids[0]]
    model = None if first.backbone.parent else model_of(first.backbone.name)
    samples = "" if first.spec.train_samples is None else str(first.spec.train_samples)
    tasks = {column.task_id for column in table.columns}
    of_model = [score for score in published_scores() if (score.model, score.train_samples) == (model, samples)]
    fits = [score for score in of_model if f"glue/{score.task}" in tasks]
    return tuple(_row(group, table) for group in group_by(fits, lambda score: score[:8]).values())


def _row(group: Sequence[PublishedScore], table: Table) -> Row:
    first = group[0]
    settings = ", ".join(part for part in (first.settings, first.params) if part)
    by_task = {f"glue/{score.task}": score for score in group}
    scores = [by_task.get(column.task_id) for column in table.columns]
    pairs = zip(table.columns, scores, strict=True)
    other = [f"{column.task} {score.metric}" for column, score in pairs if score and score.metric != column.metric]
    note = f"{first.note}; other metrics: {', '.join(other)}" if other else first.note
    metrics = tuple(score.metric if score else None for score in scores)
    return Row(
        label=f"{first.method} ({settings})" if settings else first.method,
        method=first.method,
        cells=tuple(Stat(score.value, None, 0) if score else None for score in scores),
        # 1.33M parameters; papers count without the head
        trainable=float(first.params.removesuffix("M")) * 1e6 if first.params else None,
        runs=((),) * len(scores),
        differences=(None,) * len(scores),
        leads=(False,) * len(scores),
        published=Published(source=first.source, arxiv=first.arxiv, metrics=metrics, note=note),
    )
