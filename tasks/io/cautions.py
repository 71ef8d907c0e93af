"""What a reader of a score on own data must know: examples seen in training, classes never scored or in doubt."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable

SHOWN = 8
"""Names that a line lists at most."""


def fold(text: str) -> str:
    """Return the form in which texts are compared: case, and how much space is between words, make no difference."""
    return " ".join(text.casefold().split())


def text_key(*texts: str) -> bytes:
    """Return the same 16 bytes for texts that `fold` makes equal."""
    return hashlib.blake2b("\0".join(map(fold, texts)).encode(), digest_size=16).digest()


def seen_in_training(name: str, seen: int, total: int, what: str) -> list[str]:
    """Warn that `seen` of the `total` examples of a split are in train too; `what` are `rows to validate`, say."""
    if not seen:
        return []
    return [f"{name}: {seen:,} of {total:,} {what} are also in train: their scores say nothing about new ones"]


def never_scored(name: str, classes: Collection[str], scored: Collection[str], split: str) -> list[str]:
    """Warn of the classes that no example of a split has."""
    missing = [label for label in classes if label not in scored]
    if not missing:
        return []
    return [f"{name}: {len(missing)} of {len(classes)} classes are never scored, {split} has none: {_listed(missing)}"]


def never_trained(name: str, classes: Collection[str], trained: Collection[str]) -> list[str]:
    """Warn of the classes that no example to train on has."""
    missing = [label for label in classes if label not in trained]
    if not missing:
        return []
    return [f"{name}: {len(missing)} of {len(classes)} classes are never trained, train has none: {_listed(missing)}"]


def doubtful_classes(name: str, classes: Collection[str], todo: str = "") -> list[str]:
    """Warn of classes that `fold` makes equal, and of those that look like several labels of one example.

    `todo` says how several would be read.
    """
    groups: dict[str, list[str]] = {}
    for label in classes:
        groups.setdefault(fold(label), []).append(label)
    alike = [label for group in groups.values() if len(group) > 1 for label in group]
    lines = (
        [f"{name}: classes that differ in case or space alone are different ones: {_listed(alike)}"] if alike else []
    )
    if several := [label for sign in "|;," for label in _combined(classes, sign)]:
        one = f"each is one class{f' ({todo})' if todo else ''}"
        lines.append(f"{name}: these look like several labels of one example, but {one}: {_listed(several)}")
    return lines


def _combined(classes: Collection[str], sign: str) -> list[str]:
    """Return the classes that a sign divides; a comma counts if other classes have every part too."""
    parts = {label: {part.strip() for part in label.split(sign)} for label in classes}
    divided = [label for label in classes if sign in label]
    number = Counter(part for label in classes for part in parts[label])
    if sign == "," and any(number[part] < 2 for label in divided for part in parts[label]):
        return []
    return divided


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name[:30]) for name in names]
    return ", ".join(shown[:SHOWN]) + (", …" if len(shown) > SHOWN else "")
