"""Texts that stay in their files: where each begins, read when it is asked for; and which of them are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from bench.core.errors import DataProblem
from bench.records.data import Example

PLACE = np.dtype([("file", "<u4"), ("start", "<i8"), ("size", "<u4"), ("key", "<u8")])
"""One passage: number of the file, first byte, bytes, and the first 64 bits of a hash of these."""


def key_of(raw: bytes) -> int:
    """64 bits that speak for a text: which split it goes to, and whether it is still the same."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class Passages(Sequence[Example]):
    """Unlabelled examples by their places; 24 bytes each, whatever their texts take.

    Attributes:
        files: what `places["file"]` counts.
        places: of type PLACE (N,); may be mapped from a file.
    """

    files: tuple[Path, ...]
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Read one, or a few, which are then in memory.

        Raises:
            DataProblem: a file has changed since it was read first.
        """
        if isinstance(index, slice):
            return list(self._read(self.places[index]))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return next(self._read(self.places[index : index + 1 or None]))

    def __iter__(self) -> Iterator[Example]:
        return self._read(self.places)

    def digest(self) -> bytes:
        """sha256 over the texts' keys in order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1 << 16):
            digest.update(np.ascontiguousarray(self.places["key"][start : start + (1 << 16)]).tobytes())
        return digest.digest()

    def take(self, index: np.ndarray) -> Passages:
        """Some of them, in this order."""
        return Passages(self.files, self.places[index])

    def _read(self, places: np.ndarray) -> Iterator[Example]:
        for number, group in _runs(places):
            file = self.files[number]
            try:
                with file.open("rb") as stream:
                    for place in group:
                        stream.seek(int(place["start"]))
                        raw = stream.read(int(place["size"]))
                        if key_of(raw) != int(place["key"]):
                            raise changed(file, f"at byte {int(place['start'])}")
                        yield Example(raw.decode(), None, 0)
            except OSError as error:
                raise changed(file, str(error.strerror or error)) from error


def changed(file: Path, where: str) -> DataProblem:
    """The error for a file that is no longer what it was."""
    return DataProblem(f"{file.name} changed while it was used", f"file: {file}, {where}", "Start the command again.")


def held_out(keys: np.ndarray, share: float, *, seed: int, classes: np.ndarray | None = None) -> np.ndarray:
    """Which texts are held out, bool (N,): of every class alike those whose keys, stirred by the seed, come first.

    So equal texts are on one side, order does not matter, and what was held out mostly stays so when texts are added.

    Args:
        keys: (N,) of `key_of`, uint64.
        share: of the texts; at least one, and never all, of a class that has two different texts or more.
        seed: another seed holds out others.
        classes: (N,) of each text; None: all are alike.
    """
    stirred = _stir(keys, seed)
    held = np.zeros(len(keys), dtype=bool)
    for one in [None] if classes is None else np.unique(classes):
        members = np.arange(len(keys)) if classes is None else np.flatnonzero(classes == one)
        values = stirred[members]
        first, last = values.min(initial=2**64 - 1), values.max(initial=0)
        if first == last:  # nothing to divide
            continue
        count = min(max(1, round(share * len(members))), len(members) - 1)
        bound = np.partition(values, count - 1)[count - 1]
        below = values <= bound
        held[members] = below if bound < last else values < last
    return held


def _stir(keys: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64 of key + seed, a permutation of 64-bit numbers (Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _runs(places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Neighbours in one file together, a few thousand at a time."""
    for start in range(0, len(places), 4096):
        part = places[start : start + 4096]
        edges = np.flatnonzero(np.diff(part["file"])) + 1
        for group in np.split(part, edges):
            yield int(group["file"][0]), group
