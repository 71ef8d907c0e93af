r"""Passages of text files that may be larger than memory: an index of their places, read when one is asked for.

A passage is a paragraph (the lines between two blank ones) or a line, without space around it. Lines end at "\n" alone.
A passage longer than LONGEST bytes is divided, at the end of a line or between words. No more than that is in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np

from bench.core.errors import DataProblem
from bench.core.files import regular
from bench.records.data import Example
from tasks.io.readers import BOM, NOT_UTF8, unreadable

Unit = Literal["paragraph", "line"]
SUFFIXES = (".txt", ".md")
LONGEST = 1 << 16  # bytes of the longest passage
PLACE = np.dtype([("file", "<u4"), ("start", "<i8"), ("size", "<u4"), ("key", "<u8")])
"""One passage: number of the file, first byte, bytes, and the first 64 bits of a hash of these."""
HOW = "Name a folder of .txt or .md files, or one text file: --task corpus:PATH."


def key_of(raw: bytes) -> int:
    """Return 64 bits that identify a text: they decide its split, and show whether it has changed."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class Passages(Sequence[Example]):
    """Unlabelled examples by their places in the files, of type PLACE (N,); each takes 24 bytes however long it is."""

    files: tuple[Path, ...]
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Read one, or a few, which are then in memory; a DataProblem if a file has changed since it was indexed."""
        if isinstance(index, slice):
            return list(self._read(self.places[index]))
        return next(self._read(self.places[[index]]))

    def __iter__(self) -> Iterator[Example]:
        return self._read(self.places)

    def digest(self) -> bytes:
        """Return the sha256 of the texts' keys in order."""
        return hashlib.sha256(self.places["key"].tobytes()).digest()

    def take(self, index: np.ndarray) -> Passages:
        return Passages(self.files, self.places[index])

    def _read(self, places: np.ndarray) -> Iterator[Example]:
        for number, group in groupby(places, itemgetter("file")):
            file = self.files[number]
            try:
                with file.open("rb") as stream:
                    for place in group:
                        _, start, size, key = place.item()
                        stream.seek(start)
                        raw = stream.read(size)
                        if key_of(raw) != key:
                            raise _changed(file, f"at byte {start}")
                        yield Example(raw.decode(), None, 0)
            except OSError as error:
                raise _changed(file, str(error.strerror or error)) from error


def _changed(file: Path, where: str) -> DataProblem:
    return DataProblem(f"{file.name} changed while it was used", f"file: {file}, {where}", "Start the command again.")


def held_out(keys: np.ndarray, share: float, *, seed: int, classes: np.ndarray | None = None) -> np.ndarray:
    """Decide which texts are held out, bool (N,): those whose keys, permuted by the seed, are smallest in their class.

    Equal texts are in one split, order does not matter, and most of what was held out stays so when texts are added. Of
    a class that has two different texts or more, at least one is held out, and never all. `keys` are those of `key_of`,
    uint64 (N,); without `classes` (N,), all texts are of one class.
    """
    permuted = _permute(keys, seed)
    held = np.zeros(len(keys), dtype=bool)
    classes = np.zeros(len(keys), dtype=int) if classes is None else classes
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        values = permuted[members]
        if values.min() == values.max():  # all texts are equal
            continue
        count = min(max(1, round(share * len(members))), len(members) - 1)
        bound = np.partition(values, count - 1)[count - 1]
        held[members] = values <= bound if bound < values.max() else values < bound
    return held


def _permute(keys: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64 of key + seed, a permutation of 64-bit numbers (Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    z = keys + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class TextIndex(NamedTuple):
    """The passages of some files that can be used, and the number by file of those that are not UTF-8.

    The sha256 is that of the files' bytes, one after the other, each followed by its length.
    """

    passages: Passages
    sha256: str
    left_out: Mapping[str, int]
    first_left_out: str


def find_files(path: Path) -> tuple[Path, ...]:
    """Return the file itself, or every .txt and .md below a folder, by name.

    Raises:
        DataProblem: nothing is there, a folder cannot be read, or holds no such file.
    """
    if path.is_file():
        return (path,)
    if not path.is_dir():
        kind = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise DataProblem(f"{path} {kind}", f"looked from {Path.cwd()}", HOW)
    files: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=unreadable):
        folders.sort()
        texts = [Path(folder, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
        files += [file for file in texts if file.is_file() or file.is_symlink()]  # no pipe; a broken link is an error
    if not files:
        raise DataProblem(f"there is no text in {path}", f"no file below it ends in {' or '.join(SUFFIXES)}", HOW)
    return tuple(sorted(files, key=lambda file: file.relative_to(path).as_posix()))


def index_files(files: Sequence[Path], *, unit: Unit, on_bad: Literal["error", "skip"]) -> TextIndex:
    """Index every passage of the files.

    Raises:
        DataProblem: a file cannot be read, a passage is not UTF-8 and such are not to be left out, or there is none.
    """
    digest, left_out, first_left_out = hashlib.sha256(), Counter[str](), ""

    def places() -> Iterator[tuple[int, int, int, int]]:
        nonlocal first_left_out
        for number, file in enumerate(files):
            for start, line, raw in _passages(file, unit, digest.update):
                try:
                    raw.decode()
                except UnicodeDecodeError as error:
                    bad_line = line + raw.count(b"\n", 0, error.start)
                    known = f"file: {file}, line {bad_line}, byte {start + error.start}"
                    if on_bad == "error":
                        todo = "Fix it, or leave such passages out with --set data.on_bad=skip."
                        raise DataProblem(f"{file.name}: {NOT_UTF8}", known, todo) from error
                    first_left_out = first_left_out or known
                    left_out[file.name] += 1
                else:
                    yield number, start, len(raw), key_of(raw)

    passages = Passages(tuple(files), np.fromiter(places(), dtype=PLACE))
    if not len(passages):
        bad = left_out.total()
        known = f"{bad} passages left out, which are not UTF-8" if bad else "nothing but blank lines, if anything"
        what = f"{files[0].name} holds no text" if len(files) == 1 else f"none of {len(files)} files holds text"
        raise DataProblem(what, f"first file: {files[0]}; {known}", HOW)
    return TextIndex(passages, digest.hexdigest(), dict(left_out), first_left_out)


def _passages(file: Path, unit: Unit, add: Callable[[bytes], None]) -> Iterator[tuple[int, int, bytes]]:
    """Yield the first byte, the first line and the bytes of every passage; `add` takes the file's bytes and length."""
    start, line, size, lines = 0, 1, 0, list[bytes]()
    try:
        with regular(file).open("rb") as stream:
            # a blank line at the end, which is not in the file, ends the last passage
            for offset, number, raw in chain(_numbered_lines(stream), [(-1, 0, b"")]):
                add(raw)
                text = raw.removeprefix(BOM) if offset == 0 else raw
                is_blank = not text.strip()
                if lines and (unit == "line" or is_blank or size + len(text) > LONGEST):
                    whole = b"".join(lines)
                    passage = whole.strip()
                    yield start + whole.index(passage[:1]), line, passage
                    size, lines = 0, []
                if is_blank:
                    continue
                if not lines:
                    start, line = offset + len(raw) - len(text), number
                lines.append(text)
                size += len(text)
            add(stream.tell().to_bytes(8, "little"))
    except OSError as error:
        raise DataProblem(f"{file.name} cannot be read", f"{file}: {error.strerror or error}", "Fix it.") from error


def _numbered_lines(stream: BufferedReader) -> Iterator[tuple[int, int, bytes]]:
    """Yield offset, number and bytes of every line; a line longer than LONGEST comes in parts."""
    offset, number = 0, 1
    while raw := stream.readline(LONGEST):
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            end = raw.rfind(b" ") + 1
            if not end:  # no word ends: divide between two characters, which no 10xxxxxx byte begins
                end = next((i for i in range(LONGEST - 1, LONGEST - 4, -1) if raw[i] & 0xC0 != 0x80), LONGEST)
            stream.seek(offset + end)
            raw = raw[:end]
        yield offset, number, raw
        offset += len(raw)
        number += raw.endswith(b"\n")
