"""Records into labelled examples: every label is known, every score a number in its range, every text a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from bench.records.data import Example
from tasks.io.readers import Records, malformed

SCORES = (0.0, 5.0)
"""Range of a regression label."""


def examples(records: Records, labels: Sequence[str]) -> list[Example]:
    """Examples of records whose columns are the text, the second text if there is one, and the label.

    Args:
        records: what a reader gave.
        labels: class names in the order of their indices; a label may be a name or an index. Empty: a score.

    Raises:
        DataProblem: naming file and line (or row), and what was expected there.
    """
    convert = _class_index(labels) if labels else _score
    return [_example(records, number, values, convert) for number, values in records.rows]


def _example(records: Records, number: int, values: Sequence[Any], convert: Callable[[Any], int | float]) -> Example:
    *texts, label = values
    for text in texts:
        if type(text) is not str:
            raise malformed(records.file, f"{records.unit} {number}", f"expected a text, found {text!r}")
    try:
        return Example(texts[0], texts[1] if len(texts) > 1 else None, convert(label))
    except ValueError as error:
        raise malformed(records.file, f"{records.unit} {number}", str(error)) from error


def _class_index(labels: Sequence[str]) -> Callable[[Any], int]:
    table: dict[Any, int] = {}
    for index, name in enumerate(labels):
        table.update({name: index, str(index): index, index: index})

    def convert(label: Any) -> int:
        # True == 1 and hash alike, but a boolean says nothing about the order of the classes
        if not isinstance(label, (str, int, float)) or isinstance(label, bool) or label not in table:
            numbers = " or ".join(map(str, range(len(labels))))
            raise ValueError(f"expected a label {numbers} ({', '.join(labels)}), found {label!r}")
        return table[label]

    return convert


def _score(label: Any) -> float:
    low, high = SCORES
    try:
        if isinstance(label, bool):
            raise TypeError
        score = float(label)
    except (TypeError, ValueError):
        score = math.nan
    if not low <= score <= high:
        raise ValueError(f"expected a score from {low:g} to {high:g}, found {label!r}")
    return score
