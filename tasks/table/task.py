"""Your own data: texts or pairs of texts, each with a class or a number, in a CSV, TSV, JSON lines or Parquet file.

Columns are guessed by their names unless they are given. Labels that are names, or whole numbers of few values, are
classes, scored by macro-F1 and accuracy; other numbers are a scale, scored by Pearson's and Spearman's correlation.
Macro-F1 and Pearson are primary: own data are seldom balanced, and accuracy would praise the most frequent class.
What was found is said, and kept in the record (`source.reading`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.api.task import TaskSpec
from bench.config.options import option
from bench.config.sections import TaskConfig
from bench.core.errors import UsageError
from bench.records.data import DataRequest, Dataset, Example
from tasks.io.rows import SUFFIXES, unusable
from tasks.table.columns import Columns, check, choose
from tasks.table.labels import Kind, Meaning, infer, learn, number, split
from tasks.table.read import Labelled, Source
from tasks.text.task import TextTask

SHOWN = 8
"""Classes that the line on what was found names."""


@dataclass(frozen=True, kw_only=True)
class TableConfig(TaskConfig):
    """Which columns, what kind of label, which rows to score on."""

    text: str | None = option(None, "Column of the text; none guesses by name.")
    text_pair: str | None = option(None, "Column of a second text; guessed only where the first is guessed too.")
    label: str | None = option(None, "Column of the label; none guesses by name.")
    kind: Literal["auto", "classification", "regression"] = option(
        "auto",
        "auto: names, and whole numbers of at most 20 values, are classes; other numbers are a scale.",
    )
    validation: str = option("0.1", "A file to score on, or the share of rows drawn for it, of every class alike.")
    split_seed: int = option(
        0,
        "Draws that share, whatever the run's seed: all runs and seeds are scored on the same rows.",
        at_least=0,
    )
    quotes: bool = option(
        True,
        "Whether fields may be quoted, as CSV and pandas do; false takes quotes as they stand, as in GLUE's TSV files.",
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if (share := number(self.validation)) is not None and not 0 < share < 1:
            raise UsageError(f"task.validation={self.validation}", "a share between 0 and 1, or a file", "Change it.")


class Table(TextTask):
    """Each file is a task of its own, named after it: `Table("data/train.csv")` is `table/train`.

    Raises:
        UsageError: not the name of a file of a known format.
    """

    argument: ClassVar[str] = "FILE"
    Config: ClassVar[type] = TableConfig

    def __init__(self, argument: str) -> None:
        self.file = _file(argument, "--task table:FILE")
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.file.stem).strip("-.")
        self.name = f"table/{stem[:50] or 'table'}"

    def open(self, request: DataRequest) -> Dataset:
        """Read and check every row, settle what the labels are, split.

        Raises:
            UsageError: an option names a column that is not there.
            DataProblem: no such file, or it is malformed; the error names file and line (of Parquet: row).
        """
        config = request.config or TableConfig()
        sources = [Source(self.file, quotes=config.quotes, on_bad=request.on_bad)]
        share = number(config.validation)
        if share is None:
            file = _file(config.validation, "--set task.validation=FILE, or =0.1")
            sources.append(Source(file, quotes=config.quotes, on_bad=request.on_bad))
        columns = choose(self.file, sources[0].header(), config.text, config.text_pair, config.label)
        for source in sources[1:]:
            check(source.file, source.header(), columns)
        train = sources[0].read(columns)
        kind = infer(Counter(row.label for row in train)) if config.kind == "auto" else config.kind
        if kind == "regression":
            train = sources[0].keep(train, lambda label: number(label) is not None, "the label is no number")
        meaning, held = self._learn(train, kind, columns), list[Labelled]()
        if share is not None:
            train, held = _drawn(train, kind, share, config.split_seed)
            meaning = meaning if meaning.names else self._learn(train, kind, columns)  # a scale is that of train
        for source in sources[1:]:
            held = source.keep(source.read(columns), meaning.knows, "the label is not one of train's")
        return self._corpus(config, sources, columns, meaning, train, held)

    def _learn(self, train: list[Labelled], kind: Kind, columns: Columns) -> Meaning:
        try:
            return learn([row.label for row in train], kind)
        except ValueError as error:
            known = f"column {columns.label!r}, read as {kind}"
            todo = "Name the column with --set task.label=COLUMN, the kind with --set task.kind=regression."
            raise unusable(self.file, str(error), known, todo) from error

    def _corpus(
        self,
        config: TableConfig,
        sources: list[Source],
        columns: Columns,
        meaning: Meaning,
        train: list[Labelled],
        held: list[Labelled],
    ) -> Dataset:
        hashes = [source.sha256 for source in sources]
        version = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        self.spec = _spec(self.name, version, meaning)
        drawn = len(sources) == 1
        same = (
            []
            if drawn or hashes[0] != hashes[1]
            else [f"{self.name}: validation is train itself: no score of it counts"]
        )
        reading: dict[str, Any] = {
            **{name: getattr(columns, name) for name in ("text", "text_pair", "label")},
            "guessed": list(columns.guessed),
            "kind": meaning.kind,
            "labels": list(meaning.names),
            "scale": None if meaning.names else {"mean": meaning.mean, "deviation": meaning.deviation},
            "validation": f"{number(config.validation):g}" if drawn else sources[1].file.name,
            "split_seed": config.split_seed if drawn else None,
            "quotes": config.quotes,
            "files": [{"name": s.file.name, "sha256": s.sha256, "left_out": s.counts()} for s in sources],
            "sizes": {"train": len(train), "validation": len(held)},
        }
        return Dataset(
            train=_examples(train, meaning),
            evaluation={"validation": _examples(held, meaning)},
            source="file",
            revision=self.file.name,
            notes=(_found(self.name, reading, config), *(n for s in sources for n in s.said()), *same),
            reading=reading,
            version=version,
        )


def _file(text: str, flag: str) -> Path:
    file = Path(text).expanduser()
    if not text or file.suffix.lower() not in SUFFIXES:
        known = f"read are {', '.join(SUFFIXES)}"
        raise UsageError(f"{text!r} is not the name of a table", known, f"Write {flag}, with one of these endings.")
    return file


def _drawn(rows: list[Labelled], kind: Kind, share: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    train, held = split([row.label for row in rows], share, seed=seed, stratify=kind == "classification")
    return [rows[i] for i in train], [rows[i] for i in held]


def _spec(name: str, version: str, meaning: Meaning) -> TaskSpec:
    classes = bool(meaning.names)
    return TaskSpec(
        name=name,
        version=version,
        modality="text",
        num_classes=len(meaning.names),
        metrics=("macro_f1", "accuracy") if classes else ("pearson", "spearman"),
        primary=("macro_f1",) if classes else ("pearson",),
    )


def _examples(rows: list[Labelled], meaning: Meaning) -> list[Example]:
    return [Example(row.text, row.text_pair, meaning.convert(row.label)) for row in rows]


def _found(name: str, reading: dict[str, Any], config: TableConfig) -> str:
    """The line that says what was found."""
    labels = reading["labels"]
    shown = ", ".join(repr(label[:30]) for label in labels[:SHOWN]) + (", …" if len(labels) > SHOWN else "")
    kind = f"{reading['kind']} (task.kind={config.kind})"
    scale = reading["scale"]
    what = f"{len(labels)} classes: {shown}" if labels else f"mean {scale['mean']:.4g} ± {scale['deviation']:.4g}"
    columns = ", ".join(
        f"{part.replace('_', ' ')} {reading[part]!r}" + (" (guessed)" if part in reading["guessed"] else "")
        for part in ("text", "text_pair", "label")
        if reading[part] is not None
    )
    drawn = f"share {reading['validation']}, split seed {reading['split_seed']}"
    where = drawn if reading["split_seed"] is not None else reading["validation"]
    sizes = f"{reading['sizes']['train']} rows to train, {reading['sizes']['validation']} to validate ({where})"
    return f"{name}: {kind}, {what} · {columns} · {sizes}"
