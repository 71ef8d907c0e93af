r"""Text files into passages, a line at a time: paragraphs between blank lines, or lines; where each lies, not its text.

A paragraph's text is its lines as they stand, without space around it. Lines end at "\n" alone. What is longer than
LONGEST bytes is divided, at the end of a line or between words, so that no file needs more memory than that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from bench.core.errors import DataProblem
from tasks.corpus.passages import PLACE, Passages, key_of

Unit = Literal["paragraph", "line"]
SUFFIXES = (".txt", ".md")
LONGEST = 1 << 16
"""Bytes of the longest passage."""
BOM = b"\xef\xbb\xbf"
HOW = "Name a folder of .txt or .md files, or one text file: --task corpus:PATH."


class Digest(Protocol):
    """A hash that is fed."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""
        ...


class Piece(NamedTuple):
    """Bytes of one passage, where they begin, and the line they begin at, from 1."""

    start: int
    line: int
    raw: bytes


@dataclass
class Reading:
    """What was found in files.

    Attributes:
        passages: every one that can be used, in order.
        sha256: of the files' bytes, one after the other, each with its length.
        left_out: passages that are not UTF-8, by file.
        first_left_out: where the first of them is; empty if there is none.
    """

    passages: Passages
    sha256: str
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    first_left_out: str = ""


def find(path: Path) -> tuple[Path, ...]:
    """The file itself, or every .txt and .md below a folder, by name.

    Raises:
        DataProblem: nothing is there, a folder cannot be read, or holds no such file.
    """
    if path.is_file():
        return (path,)
    if not path.is_dir():
        kind = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise DataProblem(f"{path} {kind}", f"looked from {Path.cwd()}", HOW)
    found: list[Path] = []
    for folder, folders, names in os.walk(path, onerror=_refuse):
        folders.sort()
        texts = [Path(folder, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
        found += [file for file in texts if file.is_file() or file.is_symlink()]  # no pipe; a broken link is an error
    if not found:
        raise DataProblem(f"there is no text in {path}", f"no file below it ends in {' or '.join(SUFFIXES)}", HOW)
    return tuple(sorted(found, key=lambda file: file.relative_to(path).as_posix()))


def read(files: Sequence[Path], *, unit: Unit, on_bad: Literal["error", "skip"]) -> Reading:
    """Where every passage of the files lies. No more than one passage is in memory.

    Raises:
        DataProblem: a file cannot be read, one is not UTF-8 and such are not to be left out, or there is none.
    """
    blocks: list[np.ndarray] = []
    rows: list[tuple[int, int, int, int]] = []
    digest, left_out, first = hashlib.sha256(), dict[str, int](), ""
    for number, file in enumerate(files):
        for piece in _pieces(file, unit, digest):
            if problem := _undecodable(file, piece):
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
    return Reading(Passages(tuple(files), places), digest.hexdigest(), left_out, first)


def _undecodable(file: Path, piece: Piece) -> DataProblem | None:
    try:
        piece.raw.decode()
    except UnicodeDecodeError as error:
        line = piece.line + piece.raw.count(b"\n", 0, error.start)
        return DataProblem(
            f"{file.name}: bytes that are not UTF-8",
            f"file: {file}, line {line}, byte {piece.start + error.start}",
            "Mend it, or leave such passages out with --set data.on_bad=skip.",
        )
    return None


def _pieces(file: Path, unit: Unit, digest: Digest) -> Iterator[Piece]:
    """The passages of one file; its bytes go to `digest`."""
    start, line, kept = 0, 1, list[bytes]()
    size = 0
    try:
        with file.open("rb") as stream:
            for offset, number, raw in _lines(stream):
                digest.update(raw)
                text = raw.removeprefix(BOM) if offset == 0 else raw
                ends = unit == "line" or not text.strip() or size + len(text) > LONGEST
                if ends and kept:
                    yield from _stripped(start, line, b"".join(kept))
                    kept, size = [], 0
                if text.strip():
                    if not kept:
                        start, line = offset + len(raw) - len(text), number
                    kept.append(text)
                    size += len(text)
            yield from _stripped(start, line, b"".join(kept))
            digest.update(stream.tell().to_bytes(8, "little"))
    except OSError as error:
        raise DataProblem(f"{file.name} cannot be read", f"{file}: {error.strerror or error}", "Mend it.") from error


def _stripped(start: int, line: int, raw: bytes) -> Iterator[Piece]:
    """Without space around it. The first line is not blank, so the passage begins in it."""
    text = raw.strip()
    if text:
        yield Piece(start + raw.index(text[:1]), line, text)


def _lines(stream: BufferedReader) -> Iterator[tuple[int, int, bytes]]:
    """Offset, number and bytes of every line; of a line longer than LONGEST, its parts."""
    offset, number = 0, 1
    while raw := stream.readline(LONGEST):
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            cut = raw.rfind(b" ") + 1
            if not cut:  # no word ends: then between two characters, which no 10xxxxxx byte begins
                cut = next((i for i in range(LONGEST - 1, LONGEST - 4, -1) if raw[i] & 0xC0 != 0x80), LONGEST)
            stream.seek(offset + cut)
            raw = raw[:cut]
        yield offset, number, raw
        offset += len(raw)
        number += raw.endswith(b"\n")


def _refuse(error: OSError) -> None:
    raise DataProblem(
        f"{error.filename} cannot be read", str(error.strerror or error), "Mend its permissions."
    ) from error
