"""Read the rows of a user's table: which columns hold texts and label, and which rows can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench.core.errors import DataProblem, UsageError, did_you_mean
from bench.core.files import regular, sha256
from tasks.io.readers import LARGEST, BadRow, Row, list_columns, malformed, open_table
from tasks.table.labels import as_text, canonical, canonical_classes

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PAIRS = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "answer"),
    ("query", "passage"),
    ("text", "text_pair"),
)
TEXTS = ("text", "sentence", "sentence1", "review", "content", "comment", "message", "body", "question", "title")
LABELS = ("label", "labels", "target", "class", "category", "sentiment", "score", "stars", "rating", "y")
"""Names that are looked for, upper or lower case, in this order."""


class Columns(NamedTuple):
    """Names of the columns; `guessed` lists the parts that the user did not name."""

    text: str
    text_pair: str | None
    label: str
    guessed: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Text, second text where there is one, label."""
        return [name for name in (self.text, self.text_pair, self.label) if name is not None]


def choose_columns(
    file: Path, header: Sequence[str], text: str | None, text_pair: str | None, label: str | None
) -> Columns:
    """Take the columns the user named, and guess the rest; a second text is guessed only beside a guessed text.

    Raises:
        UsageError: a named column does not exist, or one is named twice.
        DataProblem: no name in the header looks like a text or a label.
    """
    given = {"text": text, "text_pair": text_pair, "label": label}
    for option, name in given.items():
        if name is not None and name not in header:
            what = f"task.{option}={name}: {file.name} has no such column"
            raise UsageError(what, list_columns(header), did_you_mean(name, header) or "Name one of them.")
    # the first of several names that differ in case alone
    free = {name.casefold(): name for name in reversed(header) if name not in given.values()}
    if text is None:
        pair = next((names for names in PAIRS if set(names) <= free.keys()), None)
        if pair and text_pair is None:
            text, text_pair = free[pair[0]], free[pair[1]]
        else:
            text = next((free[name] for name in TEXTS if name in free), None)
    if label is None:
        label = next((free[name] for name in LABELS if name in free), None)
    if text is None or label is None:
        missing = "text" if text is None else "label"
        todo = f"Name it: --set task.{missing}=COLUMN; the first row must hold the names."
        raise malformed(file, list_columns(header), f"no column looks like the {missing}", todo)
    chosen = {"text": text, "text_pair": text_pair, "label": label}
    columns = Columns(text, text_pair, label, tuple(part for part in chosen if chosen[part] != given[part]))
    if len(set(columns.names)) < len(columns.names):
        raise UsageError(f"{file.name}: one column is named twice", ", ".join(map(repr, columns.names)), "Name others.")
    return columns


class LabelledRow(NamedTuple):
    """A usable row: its number in the file, text, second text, and its labels as text, one unless several are read."""

    number: int
    text: str
    text_pair: str | None
    labels: tuple[str, ...]


class RowFile:
    """One file of a table, and the number of its rows that cannot be used, by reason.

    Raises:
        DataProblem: the file cannot be read.
        EnvironmentProblem: it is no regular file, or too large.
    """

    def __init__(self, file: Path, *, quotes: bool, on_bad: Literal["error", "skip"]) -> None:
        self.file, self.on_bad = file, on_bad
        try:
            self.sha256 = sha256(regular(file, most=LARGEST))
        except OSError as error:
            kind = f"cannot be read ({error.strerror or error})" if file.exists() else "no such file"
            raise DataProblem(f"{file}: {kind}", f"looked from {Path.cwd()}", "Give the path of a table.") from error
        self.table = open_table(file, quotes=quotes)
        self.start()

    def start(self) -> None:
        """Begin to count anew."""
        self.total = 0
        self.rejected = Counter[str]()
        self._first: dict[str, BadRow] = {}

    def notes(self) -> list[str]:
        """Return one line if rows were left out, else none."""
        if not self.rejected:
            return []
        places = {reason: f"{self.table.unit} {row.number}" for reason, row in self._first.items()}
        parts = ", ".join(f"{count} × {reason} (first: {places[reason]})" for reason, count in self.rejected.items())
        return [f"{self.file.name}: {self.rejected.total()} of {self.total} rows left out: {parts}"]

    def reject(self, bad: BadRow) -> None:
        """Count a row that cannot be used."""
        self.rejected[bad.reason] += 1
        self._first.setdefault(bad.reason, bad)

    def check(self, usable: int) -> None:
        """Raises DataProblem if a row is bad and is not to be left out, or none of them is usable."""
        if self.rejected and self.on_bad == "error":
            first = min(self._first.values(), key=lambda bad: bad.number)
            others = self.rejected.total() - 1
            more = f"; {others} more bad rows" if others else ""
            raise self.table.error(first, more, "Fix it, or leave bad rows out with --set data.on_bad=skip.")
        if not usable:
            known = ", ".join(f"{count} × {reason}" for reason, count in self.rejected.items())
            raise self.table.malformed(known or "it holds no rows", "no row of it can be used")


class LabelledFile(RowFile):
    """A file of labelled rows.

    Args:
        separator: what stands between the classes of a row that may have any number of them; None: it has one label.
    """

    def __init__(
        self, file: Path, *, quotes: bool, on_bad: Literal["error", "skip"], separator: str | None = None
    ) -> None:
        super().__init__(file, quotes=quotes, on_bad=on_bad)
        self.separator = separator

    def read(self, columns: Columns) -> list[LabelledRow]:
        """Raises DataProblem if a row is bad and is not to be left out, or none can be used."""
        rows: list[LabelledRow] = []
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # equal labels share one object
        for row in self.table.rows(columns.names):
            self.total += 1
            pair = columns.text_pair is not None
            labelled = row if isinstance(row, BadRow) else _labelled(row, pair=pair, separator=self.separator)
            if isinstance(labelled, BadRow):
                self.reject(labelled)
            else:
                rows.append(labelled._replace(labels=shared.setdefault(labelled.labels, labelled.labels)))
        self.check(len(rows))
        return rows

    def keep(self, rows: Sequence[LabelledRow], is_good: Callable[[str], bool], reason: str) -> list[LabelledRow]:
        """Return the rows whose labels are all good, and reject the others for that reason, as `read` does."""
        bad = {label for label in {label for row in rows for label in row.labels} if not is_good(label)}
        kept: list[LabelledRow] = []
        for row in rows:
            if wrong := [label for label in row.labels if label in bad]:
                self.reject(BadRow(row.number, reason, repr(wrong[0])))
            else:
                kept.append(row)
        self.check(len(kept))
        return kept


def read_texts(number: int, values: Sequence[object]) -> list[str] | BadRow:
    """Return the texts of a row, or why they cannot be used."""
    texts: list[str] = []
    for value in values:
        text = as_text(value)
        if text is None:
            return BadRow(number, "the text is no text", type(value).__name__)
        if not text.strip():
            return BadRow(number, "the text is empty")
        texts.append(text)
    return texts


def _labelled(row: Row, *, pair: bool, separator: str | None) -> LabelledRow | BadRow:
    *values, label = row.values
    texts = read_texts(row.number, values)
    if isinstance(texts, BadRow):
        return texts
    try:
        labels = (canonical(label),) if separator is None else canonical_classes(label, separator)
    except ValueError as error:
        return BadRow(row.number, *error.args)
    return LabelledRow(row.number, texts[0], texts[1] if pair else None, labels)
