"""The result of finding images: a `Source` with its entries, and the images that cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from bench.core.errors import DataProblem
from bench.core.files import regular, sha256
from tasks.io.readers import errors_naming

Split = Literal["train", "validation", "test"]


class Entry(NamedTuple):
    """One image of a source: its name, as errors show it, and its class by name or by number."""

    name: str
    split: Split
    label: str | int


class BadGroup(NamedTuple):
    """How many images are bad for one reason, where the first of them is, and what was found there."""

    number: int
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class BadImages:
    """Images that cannot be used, counted by reason in the order of their discovery."""

    by_reason: dict[str, BadGroup] = field(default_factory=dict[str, BadGroup])

    def add(self, where: str, reason: str, detail: str = "", number: int = 1) -> None:
        """Count one more, or `number` more of which this is the first."""
        group = self.by_reason.get(reason, BadGroup(0, where, detail))
        self.by_reason[reason] = group._replace(number=group.number + number)

    def __len__(self) -> int:
        return sum(group.number for group in self.by_reason.values())

    def summary(self, total: int) -> list[str]:
        """Return one line for the user; none where nothing is bad."""
        parts = [f"{bad.number} × {reason} (first: {bad.where})" for reason, bad in self.by_reason.items()]
        return [f"{len(self)} of {total} images left out: {', '.join(parts)}"] if parts else []

    def check(self, place: str, on_bad: Literal["error", "skip"]) -> None:
        """Refuse bad images unless they are to be skipped: name the first one, and how many more there are."""
        if not self.by_reason or on_bad == "skip":
            return
        reason, (_, where, detail) = next(iter(self.by_reason.items()))
        what = f"an image cannot be used: {where}: {reason}" + (f" ({detail})" if detail else "")
        known = f"it is in {place}" + (f"; {len(self) - 1} more are bad" if len(self) > 1 else "")
        raise DataProblem(what, known, "Fix or remove it, or skip bad images with --set data.on_bad=skip.")


class Listing(NamedTuple):
    """What a source holds: images, files that are no image of a class, how many belong to no split, empty classes."""

    entries: list[Entry]
    bad: BadImages
    ignored: int = 0
    empty: tuple[str, ...] = ()


class Source(NamedTuple):
    """Where images are read from: a folder or file that errors call `place`.

    Attributes:
        sha256: hash of all that is read.
        listing: finds the images once, before any is decoded.
        read: yields each entry with the bytes of its file, or its pixels (H, W) or (H, W, 3), in the cheapest order.
        files: name and hash of every file that is not a single image.
        classes: names of the classes in the order of their numbers; empty where labels are names.
    """

    place: str
    sha256: str
    listing: Callable[[], Listing]
    read: Callable[[Sequence[Entry]], Iterator[tuple[Entry, bytes | np.ndarray]]]
    files: Sequence[Mapping[str, str]] = ()
    classes: tuple[str, ...] = ()


def hashed_file(file: Path, *, most: int | None = None) -> dict[str, str]:
    """Return name and hash of a file of at most `most` bytes."""
    with errors_naming(file):
        return {"name": file.name, "sha256": sha256(regular(file, most=most))}


def sha256_of(*parts: str) -> str:
    """Return the hex digest of some texts in a row; a path may hold bytes that are not UTF-8."""
    return hashlib.sha256("".join(parts).encode(errors="surrogateescape")).hexdigest()
