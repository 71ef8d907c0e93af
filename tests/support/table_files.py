"""Tables as users write them, and what opening one gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.core.errors import DataProblem
from bench.records.data import DataRequest, Dataset
from tasks.table.task import Table, TableConfig

NASTY = (
    "plain",
    'she said "so", twice',
    "two\nlines",
    "three\r\n\nlines, with a comma",
    "é ü 漢字 🙂",
    "a\ttab and \u2028 a line separator",
    " spaces kept ",
    '"',
    "5' 2\" tall",
)


def rows(n: int = 40) -> list[tuple[str, str]]:
    return [(f"{NASTY[i % len(NASTY)]} {i}", ("good", "bad", "so-so")[i % 3]) for i in range(n)]


def write(file: Path, data: Sequence[Sequence[Any]], header: Sequence[str] = ("text", "label"), **more: Any) -> Path:
    """A table in the format of its suffix, by the writer that users use."""
    frame = pd.DataFrame(data, columns=list(header))
    if file.suffix in (".csv", ".tsv"):
        frame.to_csv(file, index=False, sep="," if file.suffix == ".csv" else "\t", **more)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in data))
    else:
        frame.to_parquet(file, index=False)
    return file


def opened(file: Path, *, on_bad: Any = "error", **options: Any) -> tuple[Table, Dataset]:
    task = Table(str(file))
    return task, task.open(DataRequest(config=TableConfig(**options), on_bad=on_bad))


def everything(dataset: Dataset) -> list[Any]:
    """All examples, whichever part they are in."""
    return [*dataset.train, *dataset.evaluation["validation"]]


def refused(file: Path, *, on_bad: Any = "error", **options: Any) -> DataProblem:
    with pytest.raises(DataProblem) as caught:
        opened(file, on_bad=on_bad, **options)
    assert caught.value.known and caught.value.todo
    return caught.value
