r"""Passages of text files that may be larger than memory: an index of their places, read when one is asked for.

A passage is a paragraph (the lines between two blank ones) or a line, without space around it. Lines end at "\n" alone.
A passage longer than LONGEST bytes is divided, at the end of a line or between words. No more than that is in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np

from bench.core.errors import DataProblem
from bench.records.data import Example
from tasks.io.readers import BOM, NOT_UTF8

Unit = Literal["paragraph", "line"]
SUFFIXES = (".txt", ".md")
LONGEST = 1 << 16
"""Bytes of the longest passage."""
PLACE = np.dtype([("file", "<u4"), ("start", "<i8"), ("size", "<u4"), ("key", "<u8")])
"""One passage: number of the file, first byte, bytes, and the first 64 bits of a hash of these."""
HOW = "Name a folder of .txt or .md files, or one text file: --task corpus:PATH."


def key_of(raw: bytes) -> int:
    """Return 64 bits that identify a text: they decide its split, and show whether it has changed."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class Passages(Sequence[Example]):
    """Unlabelled examples by their places; each takes 24 bytes, however long its text is.

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
            DataProblem: a file has changed since it was indexed.
        """
        if isinstance(index, slice):
            return list(self._read(self.places[index]))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return next(self._read(self.places[index : index + 1 or None]))

    def __iter__(self) -> Iterator[Example]:
        return self._read(self.places)

    def digest(self) -> bytes:
        """Return the sha256 of the texts' keys in order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1 << 16):
            digest.update(np.ascontiguousarray(self.places["key"][start : start + (1 << 16)]).tobytes())
        return digest.digest()

    def take(self, index: np.ndarray) -> Passages:
        """Return some of them, in this order."""
        return Passages(self.files, self.places[index])

    def _read(self, places: np.ndarray) -> Iterator[Example]:
        for number, group in _by_file(places):
            file = self.files[number]
            try:
                with file.open("rb") as stream:
                    for place in group:
                        stream.seek(int(place["start"]))
                        raw = stream.read(int(place["size"]))
                        if key_of(raw) != int(place["key"]):
                            raise _changed(file, f"at byte {int(place['start'])}")
                        yield Example(raw.decode(), None, 0)
            except OSError as error:
                raise _changed(file, str(error.strerror or error)) from error


def _by_file(places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Group neighbours in one file, a few thousand at a time."""
    for start in range(0, len(places), 4096):
        part = places[start : start + 4096]
        edges = np.flatnonzero(np.diff(part["file"])) + 1
        for group in np.split(part, edges):
            yield int(group["file"][0]), group


def _changed(file: Path, where: str) -> DataProblem:
    return DataProblem(f"{file.name} changed while it was used", f"file: {file}, {where}", "Start the command again.")


# which passages are held out


def held_out(keys: np.ndarray, share: float, *, seed: int, classes: np.ndarray | None = None) -> np.ndarray:
    """Decide which texts are held out, bool (N,): those whose keys, permuted by the seed, are smallest in their class.

    So equal texts are in one split, order does not matter, and most of what was held out stays so when texts are added.

    Args:
        keys: (N,) of `key_of`, uint64.
        share: of the texts; at least one, and never all, of a class that has two different texts or more.
        seed: another seed holds out others.
        classes: (N,) of each text; None: all are of one class.
    """
    permuted = _permute(keys, seed)
    held = np.zeros(len(keys), dtype=bool)
    for one in [None] if classes is None else np.unique(classes):
        own = np.arange(len(keys)) if classes is None else np.flatnonzero(classes == one)
        values = permuted[own]
        first, last = values.min(initial=2**64 - 1), values.max(initial=0)
        if first == last:  # all texts are equal
            continue
        count = min(max(1, round(share * len(own))), len(own) - 1)
        bound = np.partition(values, count - 1)[count - 1]
        held[own] = values <= bound if bound < last else values < last
    return held


def _permute(keys: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64 of key + seed, a permutation of 64-bit numbers (Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


# indexing files


@dataclass
class TextIndex:
    """The passages of some files.

    Attributes:
        passages: every one that can be used, in order.
        sha256: of the files' bytes, one after the other, each followed by its length.
        left_out: number of passages that are not UTF-8, by file.
        first_left_out: place of the first of them; empty if there is none.
    """

    passages: Passages
    sha256: str
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    first_left_out: str = ""


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
    found: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=_unreadable):
        folders.sort()
        texts = [Path(folder, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
        found += [file for file in texts if file.is_file() or file.is_symlink()]  # no pipe; a broken link is an error
    if not found:
        raise DataProblem(f"there is no text in {path}", f"no file below it ends in {' or '.join(SUFFIXES)}", HOW)
    return tuple(sorted(found, key=lambda file: file.relative_to(path).as_posix()))


def index_files(files: Sequence[Path], *, unit: Unit, on_bad: Literal["error", "skip"]) -> TextIndex:
    """Index every passage of the files.

    Raises:
        DataProblem: a file cannot be read, a passage is not UTF-8 and such are not to be left out, or there is none.
    """
    blocks: list[np.ndarray] = []
    rows: list[tuple[int, int, int, int]] = []
    digest, left_out, first = hashlib.sha256(), dict[str, int](), ""
    for number, file in enumerate(files):
        for piece in _pieces(file, unit, digest.update):
            if problem := _not_utf8(file, piece):
                if on_bad == "error":
                    raise problem
                first = first or problem.known
                left_out[file.name] = left_out.get(file.name, 0) + 1
                continue
            rows.append((number, piece.start, len(piece.raw), key_of(piece.raw)))
            if len(rows) == 1 << 14:  # Python's numbers take ten times the memory
                blocks.append(np.array(rows, dtype=PLACE))
                rows = []
    places = np.concatenate([*blocks, np.array(rows, dtype=PLACE)])
    if not len(places):
        bad = sum(left_out.values())
        known = f"{bad} passages left out, which are not UTF-8" if bad else "nothing but blank lines, if anything"
        what = f"{files[0].name} holds no text" if len(files) == 1 else f"none of {len(files)} files holds text"
        raise DataProblem(what, f"first file: {files[0]}; {known}", HOW)
    return TextIndex(Passages(tuple(files), places), digest.hexdigest(), left_out, first)


class _Piece(NamedTuple):
    """Bytes of one passage, where they begin, and the line they begin at, from 1."""

    start: int
    line: int
    raw: bytes


def _not_utf8(file: Path, piece: _Piece) -> DataProblem | None:
    try:
        piece.raw.decode()
    except UnicodeDecodeError as error:
        line = piece.line + piece.raw.count(b"\n", 0, error.start)
        return DataProblem(
            f"{file.name}: {NOT_UTF8}",
            f"file: {file}, line {line}, byte {piece.start + error.start}",
            "Fix it, or leave such passages out with --set data.on_bad=skip.",
        )
    return None


def _pieces(file: Path, unit: Unit, add: Callable[[bytes], None]) -> Iterator[_Piece]:
    """Yield the passages of one file; `add` takes its bytes and its length, for a hash."""
    start, line, size, lines = 0, 1, 0, list[bytes]()
    try:
        with file.open("rb") as stream:
            for offset, number, raw in _numbered_lines(stream):
                add(raw)
                text = raw.removeprefix(BOM) if offset == 0 else raw
                is_blank = not text.strip()
                if lines and (unit == "line" or is_blank or size + len(text) > LONGEST):
                    yield from _stripped(start, line, b"".join(lines))
                    size, lines = 0, []
                if is_blank:
                    continue
                if not lines:
                    start, line = offset + len(raw) - len(text), number
                lines.append(text)
                size += len(text)
            yield from _stripped(start, line, b"".join(lines))
            add(stream.tell().to_bytes(8, "little"))
    except OSError as error:
        raise DataProblem(f"{file.name} cannot be read", f"{file}: {error.strerror or error}", "Fix it.") from error


def _stripped(start: int, line: int, raw: bytes) -> Iterator[_Piece]:
    """Take off the space around a passage. The first line is not blank, so the passage begins in it."""
    text = raw.strip()
    if text:
        yield _Piece(start + raw.index(text[:1]), line, text)


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


def _unreadable(error: OSError) -> None:
    raise DataProblem(
        f"{error.filename} cannot be read", str(error.strerror or error), "Change its permissions."
    ) from error
