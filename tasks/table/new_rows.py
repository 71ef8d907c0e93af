"""New rows of a table without labels: which columns hold their texts, and the texts a window at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.api.inputs import WINDOW, InputRequest, NewExamples
from bench.config.sections import NewRowsConfig
from bench.core.errors import UsageError, did_you_mean
from bench.records.data import Example
from tasks.io.readers import BadRow, list_columns, malformed
from tasks.table.labels import as_text
from tasks.table.rows import PAIRS, SUFFIXES, TEXTS, RowFile, read_texts


class NewRow(NamedTuple):
    """A usable row: its number from 0, its texts, and its values in the columns to keep."""

    number: int
    texts: list[str]
    kept: list[str]


class NewRows:
    """The rows of one file, as `NewInputs`.

    Args:
        known: columns of the text, or of both texts, of the data that the run was trained on; the first that the file
            has are read.

    Raises:
        UsageError: not one file of a known format, or a column does not exist.
        DataProblem: the file cannot be read, or no column looks like the text.
    """

    name = "row"

    def __init__(self, request: InputRequest, known: Sequence[tuple[str, ...]]) -> None:
        self.request = request
        config = request.config
        assert isinstance(config, NewRowsConfig)
        file = _only(request)
        quotes = request.reading.get("quotes", True) if config.quotes is None else config.quotes
        self.rows = RowFile(file, quotes=bool(quotes), on_bad=request.on_bad)
        header = self.rows.table.columns()
        self.columns = choose_texts(file, header, config, known)
        for name in request.keep:
            if name not in header:
                what = f"--keep {name}: {file.name} has no such column"
                raise UsageError(what, list_columns(header), did_you_mean(name, header) or "Name one of them.")
        self.cut = 0

    @property
    def left_out(self) -> int:
        return self.rows.rejected.total()

    def check(self) -> None:
        self.rows.check(sum(1 for _ in self._read()))

    def notes(self) -> list[str]:
        limit = f"task.max_length={self.request.max_length}"
        cut = [f"{self.cut:,} texts are longer than the run's {limit} and are cut"] if self.cut else []
        return [*self.rows.notes(), *cut]

    def windows(self) -> Iterator[NewExamples]:
        window: list[NewRow] = []
        self.cut = 0
        for row in self._read():
            window.append(row)
            if len(window) == WINDOW:
                yield self._tokenised(window)
                window = []
        if window:
            yield self._tokenised(window)

    def _read(self) -> Iterator[NewRow]:
        self.rows.start()
        names = list(dict.fromkeys([*self.columns, *self.request.keep]))  # one column may be read for two reasons
        places = [names.index(name) for name in self.columns], [names.index(name) for name in self.request.keep]
        for number, row in enumerate(self.rows.table.rows(names)):
            self.rows.total += 1
            texts = row if isinstance(row, BadRow) else read_texts(row.number, [row.values[i] for i in places[0]])
            if isinstance(texts, BadRow):
                self.rows.reject(texts)
            elif not isinstance(row, BadRow):
                yield NewRow(number, texts, [_written(row.values[i]) for i in places[1]])

    def _tokenised(self, rows: list[NewRow]) -> NewExamples:
        from tasks.text.datamodule import padded
        from tasks.text.tokens import in_memory

        examples = [Example(row.texts[0], row.texts[1] if len(row.texts) > 1 else None, 0) for row in rows]
        tokenizer = self.request.tokenizer()
        tokens = in_memory(examples, tokenizer, self.request.max_length)
        self.cut += int(tokens.cut.sum())
        return NewExamples(
            names=[row.number for row in rows],
            kept=[row.kept for row in rows],
            lengths=tokens.lengths,
            collate=partial(padded, tokens, tokenizer=tokenizer),
        )


def choose_texts(
    file: Path, header: Sequence[str], config: NewRowsConfig, known: Sequence[tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the columns of the texts, one or two as in training: those given, else those known, else by their names.

    Raises:
        UsageError: a column that was given does not exist, or there must be two and one was given, or the reverse.
        DataProblem: no column looks like the text.
    """
    given = {"text": config.text, "text_pair": config.text_pair}
    for option, name in given.items():
        if name is not None and name not in header:
            what = f"task.{option}={name}: {file.name} has no such column"
            raise UsageError(what, list_columns(header), did_you_mean(name, header) or "Name one of them.")
    several = {len(names) for names in known} or {2 if config.text_pair else 1}
    [count] = several
    named = tuple(name for name in given.values() if name is not None)
    if named:
        if len(named) != count or (count == 1 and config.text_pair):
            what = f"the run was trained on {('one text', 'two texts')[count - 1]} a row"
            todo = "Give task.text and task.text_pair." if count == 2 else "Give task.text alone."
            raise UsageError(what, ", ".join(f"task.{key}={name}" for key, name in given.items() if name), todo)
        return named
    if found := next((names for names in known if set(names) <= {*header}), None):
        return found
    lower = {name.casefold(): name for name in reversed(header)}
    guesses: Sequence[tuple[str, ...]] = PAIRS if count == 2 else [(name,) for name in TEXTS]
    if guess := next((names for names in guesses if set(names) <= lower.keys()), None):
        return tuple(lower[name] for name in guess)
    wanted = " or ".join(" and ".join(map(repr, names)) for names in known)
    known_lines = list_columns(header) + (f"; the run was trained on {wanted}" if wanted else "")
    todo = "Name it: --set task.text=COLUMN" + (" --set task.text_pair=COLUMN." if count == 2 else ".")
    raise malformed(file, known_lines, "no column looks like the text", todo)


def _only(request: InputRequest) -> Path:
    first, *others = request.places
    if others or first.suffix.lower() not in SUFFIXES:
        what = f"{first} and {len(others)} more: not one table" if others else f"{first} is no table"
        known = f"{request.task.name} reads texts; known formats: {', '.join(SUFFIXES)}"
        raise UsageError(what, known, "Give one file with one of these endings.")
    return first


def _written(value: object) -> str:
    text = as_text(value)
    return json.dumps(value, ensure_ascii=False, default=str) if text is None else text
