"""Predictions as a table: its columns, and files of CSV, JSON lines or Parquet that are written row by row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from bench.core.errors import UsageError
from bench.deploy.restore import FinishedRun

if TYPE_CHECKING:
    from bench.deploy.predictions import Predictions

SUFFIXES = (".csv", ".jsonl", ".parquet")
DIGITS = 9
"""Significant digits of a number: those of float32."""

Row = dict[str, object]
Write = Callable[[list[Row]], None]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a table of predictions: `row` or `image`, those kept, and what was predicted.

    One class: `label`, and `p_CLASS` for each, the softmax of the outputs, or `output_CLASS` after head.loss=squared,
    whose outputs are no logits. Any number of classes: `labels`, and `p_CLASS`, the sigmoid. A number: `value`.

    Raises:
        UsageError: a column to keep has one of these names.
    """

    name: str
    keep: tuple[str, ...]
    labels: tuple[str, ...]
    several: bool
    separator: str
    squared: bool

    @classmethod
    def of(cls, run: FinishedRun, name: str, keep: tuple[str, ...]) -> Columns:
        separator = str(run.record.source.reading.get("separator") or "|")
        squared = run.spec.options.head.loss == "squared"
        several = run.task.multilabel
        made = cls(name=name, keep=keep, labels=run.labels, several=several, separator=separator, squared=squared)
        if twice := next((column for column in keep if made.all.count(column) > 1), None):
            what = f"--keep {twice}: the output has a column of that name already"
            raise UsageError(what, f"columns: {', '.join(made.all)}", "Rename it in the file, or leave it out.")
        return made

    @property
    def predicted(self) -> str:
        return "labels" if self.several else "label" if self.labels else "value"

    @property
    def scores(self) -> list[str]:
        prefix = "output_" if self.squared and not self.several else "p_"
        return [f"{prefix}{label}" for label in self.labels]

    @property
    def all(self) -> list[str]:
        return [self.name, *self.keep, self.predicted, *self.scores]

    def rows(self, found: Predictions) -> Iterator[Row]:
        """Yield each example's values by column."""
        numbers = self._numbers(found.outputs)
        for name, kept, output, scores in zip(found.names, found.kept, found.outputs, numbers, strict=True):
            row: Row = {self.name: name, **dict(zip(self.keep, kept, strict=True))}
            if self.several:
                row["labels"] = [label for label, logit in zip(self.labels, output, strict=True) if logit > 0]
            elif self.labels:
                row["label"] = self.labels[int(output.argmax())]
            else:
                row["value"] = _rounded(output[0])
            yield {**row, **dict(zip(self.scores, map(_rounded, scores), strict=True))}

    def _numbers(self, outputs: np.ndarray) -> np.ndarray:
        """Return (N, classes), or (N, 0) where a number is predicted."""
        if not self.labels:
            return outputs[:, :0]
        if self.several:
            return 1 / (1 + np.exp(-outputs))
        if self.squared:
            return outputs
        powers = np.exp(outputs - outputs.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)


def check_suffix(file: Path) -> None:
    """Raise UsageError unless the name ends in one of `SUFFIXES`."""
    if file.suffix.lower() not in SUFFIXES:
        what = f"--out {file}: predictions are written as {', '.join(SUFFIXES)}"
        raise UsageError(what, "the end of the name decides", "Give a name with one of these endings.")


@contextmanager
def writing_rows(stream: BinaryIO, suffix: str, columns: Columns) -> Generator[Write]:
    """Yield a function that writes rows; at the end the file is complete."""
    match suffix.lower():
        case ".jsonl":
            yield lambda rows: _write_json(stream, rows)
        case ".parquet":
            with _parquet(stream, columns) as write:
                yield write
        case _:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(columns.all)
            try:
                yield lambda rows: writer.writerows(_plain(row.values(), columns.separator) for row in rows)
            finally:
                text.detach()  # else it would close the stream


def _write_json(stream: BinaryIO, rows: list[Row]) -> None:
    for row in rows:
        stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")


@contextmanager
def _parquet(stream: BinaryIO, columns: Columns) -> Generator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        columns.name: pa.int64() if columns.name == "row" else pa.string(),
        **dict.fromkeys(columns.keep, pa.string()),
        "label": pa.string(),
        "labels": pa.list_(pa.string()),
        "value": pa.float64(),
        **dict.fromkeys(columns.scores, pa.float64()),
    }
    schema = pa.schema([(name, kinds[name]) for name in columns.all])
    with pq.ParquetWriter(stream, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema))


def _plain(values: Iterable[object], separator: str) -> list[object]:
    return [separator.join(value) if isinstance(value, list) else value for value in values]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
