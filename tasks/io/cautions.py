"""What a reader of a score on own data must know: examples seen in training, classes that are never scored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

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


def list_names(names: Iterable[str]) -> str:
    """List names in quotes, the first eight of them."""
    shown: Sequence[str] = [repr(name[:30]) for name in names]
    return ", ".join(shown[:SHOWN]) + (", …" if len(shown) > SHOWN else "")
