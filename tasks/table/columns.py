"""Which columns of a table hold the text, a second text and the label, where the user does not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.core.errors import UsageError, did_you_mean
from tasks.io.rows import unusable

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
    """Names of the columns; `guessed` says which of them the user did not name."""

    text: str
    text_pair: str | None
    label: str
    guessed: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Text, second text where there is one, label."""
        return [name for name in (self.text, self.text_pair, self.label) if name is not None]


def choose(file: Path, header: Sequence[str], text: str | None, text_pair: str | None, label: str | None) -> Columns:
    """The columns the user named, and guesses for the rest; a second text is guessed only beside a guessed text.

    Raises:
        UsageError: a named column is not there, or one is named twice.
        DataProblem: nothing in the header looks like a text or a label, or a name stands there twice.
    """
    for option, name in (("text", text), ("text_pair", text_pair), ("label", label)):
        if name is not None and name not in header:
            hint = did_you_mean(name, header)
            raise UsageError(
                f"task.{option}={name}: {file.name} has no such column", listed(header), hint or "Name one."
            )
    guessed: list[str] = []
    free = [name for name in header if name not in (text, text_pair, label)]
    if text is None:
        guessed.append("text")
        first, second = _pair(free) if text_pair is None else (None, None)
        text = first or _first(free, TEXTS)
        if second is not None:
            text_pair = second
            guessed.append("text_pair")
    if label is None:
        guessed.append("label")
        label = _first([name for name in free if name not in (text, text_pair)], LABELS)
    if text is None or label is None:
        missing = "text" if text is None else "label"
        todo = f"Name it: --set task.{missing}=COLUMN; the first row must hold the names."
        raise unusable(file, f"no column looks like the {missing}", listed(header), todo)
    found = Columns(text, text_pair, label, tuple(guessed))
    if len(set(found.names)) < len(found.names):
        raise UsageError(f"{file.name}: one column is named twice", ", ".join(map(repr, found.names)), "Name others.")
    check(file, header, found)
    return found


def check(file: Path, header: Sequence[str], columns: Columns) -> None:
    """Every column is there, once.

    Raises:
        DataProblem: it is not.
    """
    for name in columns.names:
        if header.count(name) != 1:
            what = f"the column {name!r} is there twice" if name in header else f"there is no column {name!r}"
            raise unusable(file, what, listed(header), "Rename a column, or name others with --set task.text=COLUMN.")


def listed(header: Sequence[str]) -> str:
    """The columns there are."""
    shown = ", ".join(map(repr, header[:50])) + (" …" if len(header) > 50 else "")
    return f"columns: {shown or '(none)'}"


def _pair(header: Sequence[str]) -> tuple[str | None, str | None]:
    for names in PAIRS:
        first, second = (_first(header, (name,)) for name in names)
        if first and second:
            return first, second
    return None, None


def _first(header: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {name.casefold(): name for name in reversed(header)}
    return next((lower[name] for name in names if name in lower), None)
