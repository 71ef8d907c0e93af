"""Pictures that a list names, a path and a class number a line: how copies of VTAB-1k are laid out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tasks.images.names import Entry, Listing
from tasks.images.rejects import Rejects
from tasks.io.idx import bad

LISTS = {"train": "train800val200.txt", "test": "test.txt"}
"""Split → its list: VTAB-1k trains on its 800 and 200 examples together (arXiv 1910.04867)."""
DIGITS = 6
"""Most digits in the number of a class: a wrong column is no class, and asks for no memory."""


class Lists:
    """The pictures of both lists in a folder.

    Raises:
        DataProblem: a list is missing or malformed, or a picture is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder)
        self.files: list[dict[str, str]] = []
        entries: list[Entry] = []
        digest = hashlib.sha256()
        for split, name in LISTS.items():
            raw = self._bytes(folder / name)
            self.files.append({"name": name, "sha256": hashlib.sha256(raw).hexdigest()})
            entries += self._entries(folder / name, raw, split)
        for entry in entries:
            content = hashlib.sha256(self._bytes(folder / entry.name)).hexdigest()
            digest.update(f"{entry.split}\0{entry.label}\0{content}\0".encode())
        self._listing = Listing(entries=entries, rejects=Rejects())
        self.sha256 = digest.hexdigest()
        self.classes = tuple(map(str, range(1 + max((int(entry.label) for entry in entries), default=-1))))

    def listing(self) -> Listing:
        """Every line."""
        return self._listing

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
        """In the order given."""
        for position, entry in enumerate(entries):
            yield position, self._bytes(self.folder / entry.name)

    def _entries(self, file: Path, raw: bytes, split: str) -> Iterator[Entry]:
        for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            name, _, label = line.strip().rpartition(" ")
            if not name or not label.isdecimal() or len(label) > DIGITS:
                bad(file, "expected a path, a space and the number of a class", f"line {number}")
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                bad(file, f"a path that leads out of the folder: {name}", f"line {number}")
            yield Entry(name=name, split=split, label=int(label), key=name)

    def _bytes(self, file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            bad(file, f"cannot be read ({error.strerror or error})")


def find_lists(folder: Path) -> Lists | None:
    """The lists of a folder; None if there is none.

    Raises:
        DataProblem: as `Lists`.
    """
    return Lists(folder) if (folder / LISTS["train"]).is_file() else None
