"""Make labelled examples from the rows of a GLUE file, and check every label, score and text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from bench.records.data import Example
from tasks.io.readers import BadRow, Reader

SCORES = (0.0, 5.0)
"""Range of a regression label."""
SHORT_ROWS = 1000
"""One row in so many may lack fields where a published file is known for such rows; more are a broken file."""


class Examples(NamedTuple):
    """Examples of one file, and the number of rows that were left out because they lack fields."""

    rows: list[Example]
    left_out: int


def read_examples(
    table: Reader, columns: Sequence[str], labels: Sequence[str], *, allow_short_rows: bool = False
) -> Examples:
    """Read the examples of a table.

    Args:
        table: the file.
        columns: of the text, the second text if there is one, and the label.
        labels: class names in the order of their indices; a label may be a name or an index. Empty: a score. Class
            indices that the file itself names become those names first, as its order may differ.
        allow_short_rows: leave out rows that lack fields, as long as they are few.

    Raises:
        DataProblem: the file is malformed, a value is not what is expected, or there is no example; names file and
            line (or row).
    """
    own_names = table.class_names().get(columns[-1], ())
    rows: list[Example] = []
    short: list[BadRow] = []
    for row in table.rows(columns):
        if isinstance(row, BadRow):
            if not (allow_short_rows and row.is_short):
                raise table.error(row)
            short.append(row)
            continue
        *texts, label = row.values
        if isinstance(label, int) and 0 <= label < len(own_names):
            label = own_names[label]
        try:
            target = _class_index(label, labels) if labels else _score(label)
            rows.append(Example(_text(texts[0]), _text(texts[1]) if len(texts) > 1 else None, target))
        except ValueError as error:
            raise table.error(BadRow(row.number, str(error))) from error
    if len(short) * SHORT_ROWS > len(rows) + len(short):
        raise table.error(short[0])
    if not rows:
        raise table.malformed("", "expected at least one example, found none")
    return Examples(rows, len(short))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {value!r}")
    return value


def _class_index(label: object, labels: Sequence[str]) -> int:
    for index, name in enumerate(labels):
        # True == 1, but a boolean says nothing about the order of the classes
        if label in (name, str(index), index) and not isinstance(label, bool):
            return index
    numbers = " or ".join(map(str, range(len(labels))))
    raise ValueError(f"expected a label {numbers} ({', '.join(labels)}), found {label!r}")


def _score(label: object) -> float:
    low, high = SCORES
    try:
        score = math.nan if isinstance(label, bool) or not isinstance(label, str | int | float) else float(label)
    except ValueError:
        score = math.nan
    if not low <= score <= high:
        raise ValueError(f"expected a score from {low:g} to {high:g}, found {label!r}")
    return score
