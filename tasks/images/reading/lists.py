"""Images named by lists, one path and class number a line: a usual layout of VTAB-1k."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from bench.core.files import sha256
from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, read_bytes, sha256_of
from tasks.io.readers import malformed

LISTS: dict[Split, str] = {"train": "train800val200.txt", "test": "test.txt"}
"""Split → its list: VTAB-1k trains on its 800 and 200 examples together (arXiv 1910.04867)."""
DIGITS = 6
"""Most digits of a class number, so that a wrong column takes no memory."""


class ListedImages(Source):
    """The images of both lists in a folder.

    Raises:
        DataProblem: a list is missing or malformed, or an image is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder)
        entries = self.listing.entries
        self.files = [{"name": name, "sha256": sha256(folder / name)} for name in LISTS.values()]
        self.sha256 = sha256_of(*(f"{e.split}\0{e.label}\0{sha256_of(data)}\0" for e, data in self.read(entries)))
        self.classes = tuple(map(str, range(1 + max((int(entry.label) for entry in entries), default=-1))))

    def list_images(self) -> Listing:
        """Read both lists."""
        entries = [entry for split, name in LISTS.items() for entry in _entries(self.folder / name, split)]
        return Listing(entries=entries, bad=BadImages())

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield in the order given."""
        for entry in entries:
            yield entry, read_bytes(self.folder / str(entry.key))


def _entries(file: Path, split: Split) -> Iterator[Entry]:
    for number, line in enumerate(read_bytes(file).decode(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdecimal() or len(label) > DIGITS:
            raise malformed(file, f"line {number}", "expected a path, a space and a class number")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise malformed(file, f"line {number}", f"a path that leads out of the folder: {path}")
        yield Entry(name=path, split=split, label=int(label), key=path)


def find_lists(folder: Path) -> ListedImages | None:
    """Read the lists of a folder; None if it has none.

    Raises:
        DataProblem: as for `ListedImages`.
    """
    return ListedImages(folder) if (folder / LISTS["train"]).is_file() else None
