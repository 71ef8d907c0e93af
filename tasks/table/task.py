"""Your own data: texts or pairs of texts, each with classes or a number, in a CSV, TSV, JSON lines or Parquet file.

Columns are guessed by their names unless they are given. Labels that are names, or whole numbers of few values, are
classes, scored by macro-F1, balanced accuracy and accuracy; other numbers are a scale, scored by Pearson's and
Spearman's correlation. What may be either is asked. With `task.kind=multilabel` a row has any number of classes, scored
by micro-F1, macro-F1 and mean average precision. What makes a score doubtful is a warning of every run
(`Dataset.warnings`).
Macro-F1 and Pearson are primary: own data are seldom balanced, and accuracy rewards predicting the most frequent class.
With several classes micro-F1 is primary: below the fixed threshold of ½ the F1 of a rare class is 0 for long.
A note says how the file was read, and the record keeps it (`source.reading`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from bench.api.task import TaskSpec
from bench.config.options import option
from bench.config.sections import TaskConfig
from bench.core.errors import UsageError
from bench.records.data import DataRequest, Dataset, Example
from tasks.io.cautions import doubtful_classes, never_scored, never_trained, seen_in_training, text_key
from tasks.io.classes import METRICS, WEIGHTS_HELP
from tasks.io.readers import malformed
from tasks.table.labels import (
    LabelEncoder,
    LabelKind,
    fit_encoder,
    guess_kind,
    has_decimal_commas,
    number,
    rarest,
    split,
)
from tasks.table.rows import SUFFIXES, Columns, LabelledFile, LabelledRow, choose_columns
from tasks.text.task import TextTask

SHOWN = 8  # most classes that the note names
METRICS_OF: dict[LabelKind, tuple[str, ...]] = {
    "classification": METRICS,
    "regression": ("pearson", "spearman"),
    "multilabel": ("micro_f1", "macro_f1", "map"),
}
"""The first is primary."""


@dataclass(frozen=True, kw_only=True)
class TableConfig(TaskConfig):
    text: str | None = option(None, "Column of the text; none guesses by name.")
    text_pair: str | None = option(None, "Column of a second text; guessed only where the first is guessed too.")
    label: str | None = option(None, "Column of the label; none guesses by name.")
    kind: Literal["auto", "classification", "regression", "multilabel"] = option(
        "auto",
        "auto: names, and whole numbers of at most 20 values, are classes; other numbers are a scale, but of 21 to 300 "
        "whole ones that repeat you must say it. multilabel: a row has any number of classes, none where the cell is "
        "empty; each is predicted where its sigmoid is above 0.5.",
    )
    separator: str = option(
        "|",
        "Stands between the classes of a cell; lists in JSON lines and Parquet need none.",
        used_with={"kind": ("multilabel",)},
        commas=True,
    )
    class_weights: Literal["none", "balanced"] = option("none", WEIGHTS_HELP)
    validation: str = option(
        "0.1",
        "A file to score on, or the share of rows drawn for it, of every class alike; of several classes of a row the "
        "rarest counts.",
    )
    split_seed: int = option(
        0, "Draws that share, whatever the run's seed: all runs and seeds are scored on the same rows.", at_least=0
    )
    quotes: bool = option(
        True, "Whether fields may be quoted, as in CSV and pandas; false reads quotes as text, as in GLUE's TSV files."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.separator.strip():
            what, known = "task.separator is empty", "spaces around the value of an option are no part of it"
            raise UsageError(what, known, "Write another sign between the classes, such as '|', or use lists.")
        if (share := self.share) is not None and not 0 < share < 1:
            raise UsageError(f"task.validation={self.validation}", "a share between 0 and 1, or a file", "Change it.")

    @property
    def share(self) -> float | None:
        """`validation` as a number; None where it names a file."""
        return number(self.validation)


class Table(TextTask):
    """Each file is a task of its own, named after it: `Table("data/train.csv")` is `table/train`.

    Raises:
        UsageError: not the name of a file of a known format.
    """

    argument: ClassVar[str] = "FILE"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    Config: ClassVar[type] = TableConfig

    def __init__(self, argument: str) -> None:
        self.file = _table_path(argument, "--task table:FILE")
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.file.stem).strip("-.")
        self.name = f"table/{stem[:50] or 'table'}"

    def open(self, request: DataRequest) -> Dataset:
        """Read and check every row, decide what the labels are, and split.

        Raises:
            UsageError: an option does not fit the columns or the labels, or `kind` must be given.
            DataProblem: no such file, or it is malformed; the error names file and line (of Parquet: row).
        """
        config = request.config_as(TableConfig)
        paths = [self.file]
        if config.share is None:
            paths.append(_table_path(config.validation, "--set task.validation=FILE, or =0.1"))
        separator = config.separator if config.kind == "multilabel" else None
        files = [LabelledFile(path, quotes=config.quotes, on_bad=request.on_bad, separator=separator) for path in paths]
        columns = choose_columns(self.file, files[0].table.columns(), config.text, config.text_pair, config.label)
        train = files[0].read(columns)
        kind = self._guess_kind(train, columns) if config.kind == "auto" else config.kind
        if config.class_weights != "none" and kind != "classification":
            what = f"task.class_weights={config.class_weights} needs one class in each row"
            known = f"{self.file.name}, column {columns.label!r}, is read as {kind}"
            raise UsageError(what, known, "Leave it out, or say task.kind=classification.")
        if kind == "regression":
            train = files[0].keep(train, lambda label: number(label) is not None, "the label is no number")
        encoder = self._fit(train, kind, columns)
        if config.share is None:
            reason = "the label is not one of train's"
            validation = files[1].keep(files[1].read(columns), encoder.can_encode, reason)
            where = files[1].file.name
        else:
            strata, keys = rarest([row.labels for row in train]), [_key(row) for row in train]
            parts = split(strata, config.share, seed=config.split_seed, stratify=kind != "regression", keys=keys)
            train, validation = ([train[i] for i in part] for part in parts)
            if not validation:
                what = "no row can be drawn to validate on: equal texts stay together, and each text is there often"
                known = f"{len(train)} rows, {len(set(keys))} different texts, share {config.share:g}"
                raise malformed(
                    self.file, known, what, "Leave out repeated rows, or name a file: task.validation=FILE."
                )
            if kind == "regression":  # the scale is that of the rows trained on
                encoder = self._fit(train, kind, columns)
            where = f"share {config.share:g}, split seed {config.split_seed}"
        hashes = [file.sha256 for file in files]
        version = hashes[0] if len(files) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        counts = f"{len(train)} rows to train, {len(validation)} to validate ({where})"
        if encoder.several:  # 1.00 shows a wrong separator
            numbers = [len(row.labels) for row in (*train, *validation)]
            counts += f", {sum(numbers) / len(numbers):.2f} classes per row, {numbers.count(0)} rows have none"
        notes = [f"{self.name}: {_describe(config, columns, encoder, kind)} · {counts}"]
        notes += [note for file in files for note in file.notes()]
        if len(hashes) == 2 and hashes[0] == hashes[1]:
            notes.append(f"{self.name}: the validation file is the training file; its scores do not count")
        known = {_key(row) for row in train}
        seen = sum(_key(row) in known for row in validation)
        trained, scored = ({label for row in rows for label in row.labels} for rows in (train, validation))
        read_several = "--set task.separator=SIGN" if encoder.several else "--set task.kind=multilabel"
        warnings = [
            *seen_in_training(self.name, seen, len(validation), "rows to validate"),
            *doubtful_classes(self.name, encoder.names, f"{read_several} reads several"),
            *never_trained(self.name, encoder.names, trained),
            *never_scored(self.name, encoder.names, scored, "validation"),
        ]
        self.spec = TaskSpec(
            name=self.name,
            version=version,
            modality="text",
            num_classes=len(encoder.names),
            labels=encoder.names,
            multilabel=encoder.several,
            balanced=config.class_weights == "balanced",
            metrics=METRICS_OF[kind],
            primary=METRICS_OF[kind][:1],
        )
        encoded = {labels: encoder.encode(labels) for labels in {row.labels for row in (*train, *validation)}}
        examples = [
            [Example(row.text, row.text_pair, encoded[row.labels]) for row in rows] for rows in (train, validation)
        ]
        return Dataset(
            train=examples[0],
            evaluation={"validation": examples[1]},
            source="file",
            revision=self.file.name,
            notes=tuple(notes),
            warnings=tuple(warnings),
            reading={
                **columns._asdict(),
                "guessed": list(columns.guessed),
                "kind": kind,
                "separator": separator,
                "labels": list(encoder.names),
                "scale": None if encoder.names else {"mean": encoder.mean, "deviation": encoder.deviation},
                "validation": where if config.share is None else f"{config.share:g}",
                "split_seed": None if config.share is None else config.split_seed,
                "quotes": config.quotes,
                "files": [{"name": f.file.name, "sha256": f.sha256, "left_out": dict(f.rejected)} for f in files],
                "sizes": {"train": len(train), "validation": len(validation)},
                "also_in_train": seen,
            },
            version=version,
        )

    def _guess_kind(self, train: list[LabelledRow], columns: Columns) -> LabelKind:
        counts = Counter(label for row in train for label in row.labels)
        if has_decimal_commas(counts):
            known = f"column {columns.label!r}, such as {next(label for label in counts if ',' in label)!r}"
            todo = "Write them with points, or say that they are names: --set task.kind=classification."
            raise malformed(self.file, known, "the labels look like numbers with a decimal comma", todo)
        if kind := guess_kind(counts):
            return kind
        what = f"{self.file.name}: are the labels classes or a scale? They are {len(counts)} different whole numbers"
        known = (
            f"column {columns.label!r}, such as {', '.join(map(repr, list(counts)[:SHOWN]))}, in {len(train):,} rows"
        )
        todo = "Say it: --set task.kind=classification or --set task.kind=regression."
        raise UsageError(what, known, todo)

    def _fit(self, train: list[LabelledRow], kind: LabelKind, columns: Columns) -> LabelEncoder:
        try:
            return fit_encoder([row.labels for row in train], kind)
        except ValueError as error:
            known = f"column {columns.label!r}, read as {kind}"
            other = (
                "the sign between classes with task.separator" if kind == "multilabel" else "the kind with task.kind"
            )
            todo = f"Name the column with --set task.label=COLUMN, or {other}."
            raise malformed(self.file, known, str(error), todo) from error


def _key(row: LabelledRow) -> bytes:
    return text_key(row.text, *filter(None, [row.text_pair]))


def _table_path(text: str, flag: str) -> Path:
    file = Path(text).expanduser()
    if not text or file.suffix.lower() not in SUFFIXES:
        known = f"known formats: {', '.join(SUFFIXES)}"
        raise UsageError(f"{text!r} is not the name of a table", known, f"Write {flag}, with one of these endings.")
    return file


def _describe(config: TableConfig, columns: Columns, encoder: LabelEncoder, kind: LabelKind) -> str:
    """Say what the labels are, and which columns were read."""
    shown = ", ".join(repr(name[:30]) for name in encoder.names[:SHOWN])
    more = ", …" if len(encoder.names) > SHOWN else ""
    scale = f"mean {encoder.mean:.4g} ± {encoder.deviation:.4g}"
    labels = f"{len(encoder.names)} classes: {shown}{more}" if encoder.names else scale
    parts = ", ".join(
        f"{part.replace('_', ' ')} {name!r}" + (" (guessed)" if part in columns.guessed else "")
        for part in ("text", "text_pair", "label")
        if (name := getattr(columns, part)) is not None
    )
    return f"{kind} (task.kind={config.kind}), {labels} · {parts}"
