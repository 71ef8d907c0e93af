"""A table's file into columns of texts and labels, row by row; rows that cannot be used are counted by reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench.core.errors import DataProblem
from tasks.io.rows import UTF8, Bad, Row, format_of, is_unicode, unusable
from tasks.table.columns import Columns
from tasks.table.labels import canonical


class Labelled(NamedTuple):
    """A usable row: its number in the file, text, second text, label as text."""

    number: int
    text: str
    text_pair: str | None
    label: str


class Source:
    """One file of a table, and what of it cannot be used.

    Attributes:
        sha256: of its bytes.
        total: rows read.
        rejects: by reason the number of rows, the first of them, and what was found there.

    Raises:
        DataProblem: there is no such file.
    """

    def __init__(self, file: Path, *, quotes: bool, on_bad: Literal["error", "skip"]) -> None:
        self.file, self.on_bad = file, on_bad
        self.sha256 = _sha256(file)
        self.format = format_of(file, quotes=quotes)
        self.rejects: dict[str, tuple[int, int, str]] = {}
        self.total = 0

    def header(self) -> Sequence[str]:
        """Names of the columns."""
        return self.format.columns(self.file)

    def read(self, columns: Columns) -> list[Labelled]:
        """Every row that can be used.

        Raises:
            DataProblem: one cannot and is not to be left out, or none can.
        """
        rows: list[Labelled] = []
        same: dict[str, str] = {}  # one object for equal labels
        for row in self.format.rows(self.file, columns.names):
            self.total += 1
            made = row if isinstance(row, Bad) else _labelled(row, pair=columns.text_pair is not None)
            if isinstance(made, Bad):
                self._reject(made)
            else:
                rows.append(made._replace(label=same.setdefault(made.label, made.label)))
        return self._checked(rows)

    def keep(self, rows: Sequence[Labelled], good: Callable[[str], bool], reason: str) -> list[Labelled]:
        """Rows whose label is good; the others cannot be used, for that reason.

        Raises:
            DataProblem: as in `read`.
        """
        verdict = {label: good(label) for label in {row.label for row in rows}}
        for row in rows:
            if not verdict[row.label]:
                self._reject(Bad(row.number, reason, repr(row.label)))
        return self._checked([row for row in rows if verdict[row.label]])

    def counts(self) -> dict[str, int]:
        """Rejected rows by reason."""
        return {reason: count for reason, (count, _, _) in self.rejects.items()}

    def said(self) -> list[str]:
        """One line where rows were left out, else none."""
        if not self.rejects:
            return []
        unit, bad = self.format.unit, sum(self.counts().values())
        parts = [f"{count} × {reason} (first: {unit} {first})" for reason, (count, first, _) in self.rejects.items()]
        return [f"{self.file.name}: {bad} of {self.total} rows left out: {', '.join(parts)}"]

    def _reject(self, bad: Bad) -> None:
        count, first, detail = self.rejects.get(bad.reason, (0, bad.number, bad.detail))
        self.rejects[bad.reason] = (count + 1, first, detail)

    def _checked(self, rows: list[Labelled]) -> list[Labelled]:
        if self.rejects and self.on_bad == "error":
            reason, (_, first, detail) = min(self.rejects.items(), key=lambda item: item[1][1])
            more = sum(self.counts().values()) - 1
            raise DataProblem(
                f"malformed data in {self.file.name}: {reason}" + (f" ({detail})" if detail else ""),
                f"file: {self.file}, {self.format.unit} {first}" + (f"; {more} more such or other" if more else ""),
                "Mend it, or leave bad rows out with --set data.on_bad=skip.",
            )
        if not rows:
            known = ", ".join(f"{count} × {reason}" for reason, count in self.counts().items())
            raise unusable(self.file, "no row of it can be used", known or "it holds no rows")
        return rows


def _labelled(row: Row, *, pair: bool) -> Labelled | Bad:
    *texts, label = row.values
    for text in texts:
        if text is not None and not isinstance(text, str):
            return Bad(row.number, "the text is no text", type(text).__name__)
        if not text or not text.strip():
            return Bad(row.number, "the text is empty")
        if not is_unicode(text):
            return Bad(row.number, UTF8)
    try:
        return Labelled(row.number, texts[0], texts[1] if pair else None, canonical(label))
    except ValueError as error:
        return Bad(row.number, str(error))


def _sha256(file: Path) -> str:
    """Of the file's bytes.

    Raises:
        DataProblem: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        kind = "no such file" if not file.exists() else f"cannot be read ({error.strerror or error})"
        raise DataProblem(f"{file}: {kind}", f"looked from {Path.cwd()}", "Give the path of a table.") from error
