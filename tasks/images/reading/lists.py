"""Images named by lists, one path and class number a line: a usual layout of VTAB-1k."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, hashed_file, read_files, sha256_of
from tasks.io.readers import errors_naming, malformed

LISTS: dict[Split, str] = {"train": "train800val200.txt", "test": "test.txt"}
"""Split → its list: VTAB-1k trains on its 800 and 200 examples together (arXiv 1910.04867)."""
DIGITS = 6
"""Most digits of a class number, so that a wrong column takes no memory."""


def find_lists(folder: Path) -> Source | None:
    """Return the images of both lists in a folder; None if it has none."""
    if not (folder / LISTS["train"]).is_file():
        return None
    entries = [entry for split, name in LISTS.items() for entry in _entries(folder / name, split)]
    contents = (f"{e.split}\0{e.label}\0{hashed_file(folder / e.name)['sha256']}\0" for e in entries)
    classes = range(1 + max((int(entry.label) for entry in entries), default=-1))
    return Source(
        place=str(folder),
        sha256=sha256_of(*contents),
        listing=lambda: Listing(entries, BadImages()),
        read=partial(read_files, folder),
        files=[hashed_file(folder / name) for name in LISTS.values()],
        classes=tuple(map(str, classes)),
    )


def _entries(file: Path, split: Split) -> Iterator[Entry]:
    with errors_naming(file):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdecimal() or len(label) > DIGITS:
            raise malformed(file, f"line {number}", "expected a path, a space and a class number")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise malformed(file, f"line {number}", f"a path that leads out of the folder: {path}")
        yield Entry(path, split, int(label))
