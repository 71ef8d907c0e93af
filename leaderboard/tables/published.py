"""Figures that papers report, beside ours for the same backbone and task: cited, marked, never ranked."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import NamedTuple

from bench.records.record import Record
from leaderboard.tables.table import Published, Row, Stat, Table

NAMES = {
    "deberta-v3-base": "DeBERTaV3-base",
    "debertav3-base": "DeBERTaV3-base",
    "roberta-base": "RoBERTa-base",
    "roberta-large": "RoBERTa-large",
    "bert-base-cased": "BERT-base-cased",
}
"""Last part of a backbone's name, in lower case → the papers' name for it."""


class Figure(NamedTuple):
    """One published number: a line of published.csv, scores as fractions."""

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
def figures() -> tuple[Figure, ...]:
    """Every published number that ships."""
    text = resources.files("leaderboard.tables").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(Figure(**{**row, "value": float(row["value"])}) for row in csv.DictReader(text.splitlines()))  # type: ignore[arg-type]


def model_of(backbone: str) -> str | None:
    """The papers' name for a backbone: `microsoft/deberta-v3-base` is DeBERTaV3-base."""
    return NAMES.get(backbone.rstrip("/").rpartition("/")[2].lower())


def with_published(tables: Sequence[Table], records: Iterable[Record]) -> list[Table]:
    """The tables, each with what is published for its backbone, tasks and number of training examples."""
    by_id = {run.run_id: run for run in records}
    return [replace(table, published=_rows(table, by_id)) for table in tables]


def _rows(table: Table, records: Mapping[str, Record]) -> tuple[Row, ...]:
    ids = [run.run_id for row in table.rows for cell in row.runs for run in cell]
    ids += [run_id for row in table.rows for run_id in row.failed_ids]
    one = records[ids[0]]
    model = None if one.backbone.parent else model_of(one.backbone.name)
    samples = one.spec.train_samples
    here = {column.cell for column in table.columns}
    groups: dict[tuple[str, ...], list[Figure]] = defaultdict(list)
    for figure in figures():
        fits = figure.model == model and figure.train_samples == ("" if samples is None else str(samples))
        if fits and f"glue/{figure.task}" in here:
            groups[figure[:8]].append(figure)
    return tuple(_row(group, table) for group in groups.values())


def _row(group: Sequence[Figure], table: Table) -> Row:
    first = group[0]
    told = [part for part in (first.settings, first.params) if part]
    by_cell = {f"glue/{figure.task}": figure for figure in group}
    found = [by_cell.get(column.cell) for column in table.columns]
    metrics = zip(table.columns, found, strict=True)
    other = [f"{column.task} {one.metric}" for column, one in metrics if one and one.metric != column.metric]
    return Row(
        label=f"{first.method} ({', '.join(told)})" if told else first.method,
        method=first.method,
        settings={},
        cells=tuple(Stat(figure.value, None, 0) if figure else None for figure in found),
        trainable=_count(first.params),
        states={},
        failures={},
        warnings={},
        published=Published(
            source=first.source,
            arxiv=first.arxiv,
            metrics=tuple(figure.metric if figure else None for figure in found),
            note="; ".join([first.note, *(["other metrics: " + ", ".join(other)] if other else [])]),
        ),
    )


def _count(params: str) -> float | None:
    """Parameters of `1.33M`; they are the papers' own count, without the head."""
    return float(params.removesuffix("M")) * 1e6 if params else None


def models() -> list[str]:
    """Backbones that anything is published for."""
    return sorted({figure.model for figure in figures()})
