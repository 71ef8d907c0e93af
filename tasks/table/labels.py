"""Labels of a table: classes or numbers on a scale; and a split of rows that takes the same share of every class."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Literal, cast

from tasks.io.readers import NOT_UTF8, is_unicode

LabelKind = Literal["classification", "regression", "multilabel"]
MOST_CLASSES = 20  # whole numbers of at most so many values are classes; of more, a scale
MOST_UNCLEAR = 300  # whole numbers of at most so many values, which repeat, may be classes or a scale
MOST_CELLS = 10**8  # rows times classes, where a row has any number of classes: each has a number for each class
MOST_STRAY = 0.1  # share of the labels that may be no numbers where the others are a scale
MISSING = frozenset(
    {
        *("#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "n/a", "None", "NULL", "null"),
        *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    }
)
"""Texts that stand for no label, as in pandas."""


def as_text(value: object) -> str | None:
    """Write a text, a number, truth (`true`, `false`) or nothing as text; None of anything else."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float() | Decimal():
            return "" if math.isnan(value) else repr(float(value))
        case _:
            return None


def canonical(label: object) -> str:
    """Write a label as text: whole numbers without a fraction (`1.0` is `1`), truth as `true` and `false`.

    Raises:
        ValueError: it is missing, or neither text nor number; the arguments are the reason, and what was found.
    """
    text = as_text(label)
    if isinstance(label, list):
        raise ValueError("the label is a list, which only task.kind=multilabel reads")
    if text is None:
        raise ValueError("the label is neither text nor number")
    text = text.strip()
    if not is_unicode(text):
        raise ValueError(f"{NOT_UTF8} in the label")
    if not text:
        raise ValueError("the label is missing")
    if text in MISSING or text.casefold() == "nan":
        raise ValueError("the label is missing", repr(text))
    return re.sub(r"\.0+$", "", text) if number(text) is not None else text


def canonical_classes(label: object, separator: str) -> tuple[str, ...]:
    """Return the distinct classes that a label names, sorted: of a list its items, of a text its parts; perhaps none.

    Raises:
        ValueError: as for `canonical`, of an item or part.
    """
    if isinstance(label, list):
        parts = cast("list[object]", label)
    else:
        text = as_text(label)
        parts = [label] if text is None else [part for part in text.split(separator) if part.strip()]
    return tuple(sorted({canonical(part) for part in parts}))


def number(text: str) -> float | None:
    """Return the finite number that a text stands for, or None."""
    try:
        value = math.nan if "_" in text else float(text)  # Python reads 1_000, other programs do not
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def guess_kind(counts: Mapping[str, int]) -> LabelKind | None:
    """Guess from rows per label: numbers with a fraction, or more than 20 whole ones, are a scale; others classes.

    None of 21 to 300 whole numbers that occur twice or more on average: they may be either.
    """
    numbers = {text: value for text in counts if (value := number(text)) is not None}
    if sum(counts[text] for text in numbers) < (1 - MOST_STRAY) * sum(counts.values()):
        return "classification"
    if not all(value.is_integer() for value in numbers.values()):
        return "regression"
    if len(numbers) <= MOST_CLASSES:
        return "classification"
    repeat = sum(counts[text] for text in numbers) >= 2 * len(numbers)
    return None if repeat and len(numbers) <= MOST_UNCLEAR else "regression"


def has_decimal_commas(labels: Iterable[str]) -> bool:
    """Tell whether all labels are numbers once a comma is read as a point, and one has a comma."""
    labels = list(labels)
    return any("," in label for label in labels) and all(
        number(label.replace(",", ".")) is not None for label in labels
    )


@dataclass(frozen=True, kw_only=True)
class LabelEncoder:
    """Turns labels into classes, or into numbers of mean 0 and deviation 1.

    The mean and deviation are those of the training labels. Both correlations stay the same, and the squared error of
    large numbers, such as prices, would make training diverge.

    Attributes:
        names: the classes in the order of their indices; empty for numbers.
        several: whether a row has any number of classes.
    """

    names: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0
    several: bool = False

    def encode(self, labels: tuple[str, ...]) -> int | float | tuple[int, ...]:
        """Return a row's class index, its number in deviations from the mean, or 0 or 1 for each of several classes."""
        if self.several:
            return tuple(int(name in labels) for name in self.names)
        [label] = labels
        return self._index[label] if self.names else (float(label) - self.mean) / self.deviation

    def can_encode(self, label: str) -> bool:
        """Tell whether a label is one of the classes, or a number."""
        return label in self._index if self.names else number(label) is not None

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}


def fit_encoder(rows: Sequence[tuple[str, ...]], kind: LabelKind) -> LabelEncoder:
    """Fit an encoder to the labels of rows: one each, or any number of classes for `multilabel`.

    Raises:
        ValueError: all labels are equal, there are more classes than half the rows, or too many for several per row.
    """
    different = {label for labels in rows for label in labels}
    if len(different) < 2:
        raise ValueError(f"all labels are equal: {min(different)!r}" if different else "no row has a label")
    if kind == "regression":
        return _scale([float(label) for (label,) in rows])
    if 2 * len(different) > len(rows):
        raise ValueError(f"{len(different)} different labels in {len(rows)} rows are too many classes")
    if kind == "multilabel" and len(different) * len(rows) > MOST_CELLS:
        raise ValueError(f"{len(different):,} classes times {len(rows):,} rows are more than {MOST_CELLS:,}")
    return LabelEncoder(names=sort_classes(different), several=kind == "multilabel")


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Sort classes by value if all of them are numbers, else by name, where numbers in names count by value."""
    values = {name: number(name) for name in names}
    if None in values.values():
        return tuple(sorted(values, key=_parts))
    return tuple(sorted(values, key=lambda name: (values[name] or 0.0, name)))


def _parts(name: str) -> tuple[list[str | int], str]:
    """Return text and whole numbers in turn, then the name itself."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))], name


def _scale(numbers: Sequence[float]) -> LabelEncoder:
    try:
        mean = math.fsum(numbers) / len(numbers)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / len(numbers))
    except OverflowError:
        raise ValueError("the numbers are too large") from None
    if not deviation:
        raise ValueError("all labels are equal, or too near each other")
    return LabelEncoder(mean=mean, deviation=deviation)


def rarest(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return each row's label, of several the one that the fewest rows have; "" where there is none.

    As strata of `split` they keep rare classes on both sides, as the order of iterative stratification does
    (Sechidis et al. 2011, doi 10.1007/978-3-642-23808-6_10).
    """
    counts = Counter(label for labels in rows for label in labels)
    return [min(labels, key=lambda label: (counts[label], label), default="") for labels in rows]


def split(
    labels: Sequence[str], share: float, *, seed: int, stratify: bool, keys: Sequence[Hashable] = ()
) -> tuple[list[int], list[int]]:
    """Return the indices to train on and to validate on, each ascending.

    `round(share·n)` examples are drawn for validation. Stratified, each class gives its share of them, rounded down,
    and the classes with the largest remainders give one more; but every class keeps an example to train on.

    Examples with equal keys stay on one side. They are drawn if that brings no class further from its share, so none
    may be drawn where all are equal to many others.
    """
    import numpy as np

    order: list[int] = np.random.default_rng([seed, len(labels)]).permutation(len(labels)).tolist()
    classes = labels if stratify else [""] * len(labels)
    groups: dict[str, list[int]] = {}
    for index in order:
        groups.setdefault(classes[index], []).append(index)
    left = Counter({label: len(group) for label, group in groups.items()})
    wanted = _quotas(left, share)
    keys = keys or range(len(labels))
    equal: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        equal.setdefault(key, []).append(index)
    held = set[int]()
    for index in (index for group in groups.values() for index in group):
        if index in held or wanted[classes[index]] <= 0:
            continue
        together = equal[keys[index]]
        need = Counter(classes[i] for i in together)
        if all(count <= 2 * wanted[label] and count < left[label] for label, count in need.items()):
            held.update(together)
            wanted.subtract(need)
            left.subtract(need)
    return [index for index in range(len(labels)) if index not in held], sorted(held)


def _quotas(sizes: Mapping[str, int], share: float) -> Counter[str]:
    """Return how many examples each class gives: largest remainder first, then the larger class, then the name."""
    total = sum(sizes.values())
    wanted = max(1, round(share * total))
    exact = {label: size * wanted / total for label, size in sizes.items()}
    quotas = Counter({label: min(math.floor(quota), sizes[label] - 1) for label, quota in exact.items()})
    by_need = sorted(sizes, key=lambda label: (quotas[label] - exact[label], -sizes[label], label))
    while (missing := wanted - quotas.total()) > 0:
        able = [label for label in by_need if quotas[label] < sizes[label] - 1]
        if not able:
            break
        quotas.update(able[:missing])
    return quotas
