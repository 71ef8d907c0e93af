"""Pictures in class folders, and in tars of class folders, which are read without being unpacked."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from bench.core.errors import DataProblem
from tasks.images.names import Entry, Listing, arrange, hidden, of_split
from tasks.images.rejects import Rejects
from tasks.io.idx import bad

TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
LARGEST = 1 << 28
"""Bytes of the largest file in a tar that is read: a few bytes of it can stand for any number."""
BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


class Source(Protocol):
    """Where pictures are read from.

    Attributes:
        place: the folder or file, as errors name it.
        sha256: of all that is read.
        files: name and hash of every file that is no single picture.
        classes: names of the classes in the order of their numbers; empty if labels are names.
    """

    place: str
    sha256: str
    files: list[dict[str, str]]
    classes: tuple[str, ...]

    def listing(self) -> Listing:
        """The pictures, before any is decoded."""
        ...

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, bytes | np.ndarray]]:
        """Position in `entries` and content of each, in whatever order is cheapest."""
        ...


class Folder:
    """Class folders, perhaps below folders of splits; with `split`, all of it is that split.

    Raises:
        DataProblem: something in it cannot be read.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, folder: Path, split: str = "") -> None:
        self.folder, self.place = folder, str(folder)
        rejects, names, folders = Rejects(), list[str](), list[str]()
        for name in self._walk(folder, "", rejects):
            (folders if name.endswith("/") else names).append(name.rstrip("/"))
        self._listing = of_split(arrange(names, rejects, folders), split)
        self.sha256 = self._hash()
        self.files: list[dict[str, str]] = []  # the hash of the whole says it

    def listing(self) -> Listing:
        """Every file below the folder; a link to a folder of classes is followed, one further below is not."""
        return self._listing

    def _walk(self, folder: Path, above: str, rejects: Rejects) -> Iterator[str]:
        try:
            found = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataProblem(f"{folder} cannot be read", str(error), "Mend its permissions.") from error
        for entry in found:
            name = f"{above}{entry.name}"
            if hidden(entry.name):
                continue
            if entry.is_dir():
                if entry.is_symlink() and name.count("/") > 1:
                    rejects.add(name, "a link to a folder")
                    continue
                yield f"{name}/"
                yield from self._walk(Path(entry.path), f"{name}/", rejects)
            else:
                yield name

    def _hash(self) -> str:
        """Of the names of all, and the contents of all pictures."""
        digest = hashlib.sha256()
        rejects = self._listing.rejects.by_reason.values()
        for name in (*self._listing.empty, *(f"{first.times} {first.where}" for first in rejects)):
            digest.update(f"{name}\0".encode(errors="surrogateescape"))
        for entry in self._listing.entries:
            digest.update(f"{entry.name}\0{_sha256(self.folder / entry.name)}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
        """In the order given."""
        for position, entry in enumerate(entries):
            file = self.folder / entry.name
            try:
                yield position, file.read_bytes()
            except OSError as error:
                bad(file, f"cannot be read ({error.strerror or error})")


class Tar:
    """A tar of class folders, compressed or not; nothing is unpacked onto the disk. `split` as of `Folder`.

    Raises:
        DataProblem: it is no tar, or is truncated.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, file: Path, split: str = "") -> None:
        self.file, self.place, self.split = file, str(file), split
        self.sha256 = _sha256(file)
        self.files = [{"name": file.name, "sha256": self.sha256}]

    def listing(self) -> Listing:
        """Every member that is a file."""
        rejects, names, folders = Rejects(), dict[str, None](), list[str]()
        for _, member in self._members():
            name = str(PurePosixPath(member.name))
            if hidden(name.replace("..", "")):
                continue
            if reason := _refused(member, name, names):
                rejects.add(f"{self.file.name}: {name}", reason)
            elif member.isdir():
                folders.append(name)
            else:
                names[name] = None
        return of_split(arrange(list(names), rejects, folders), self.split)

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
        """In the order of the file, which is read once."""
        wanted = {entry.key: position for position, entry in enumerate(entries)}
        for tar, member in self._members():
            position = wanted.pop(str(PurePosixPath(member.name)), None) if member.isfile() else None
            if position is None:
                continue
            try:
                stream = tar.extractfile(member)
                data = stream.read() if stream else b""
            except BROKEN as error:
                bad(self.file, f"it breaks off ({error})", member.name)
            yield position, data

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        last = "its beginning"
        try:
            with tarfile.open(self.file, "r|*") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                    yield tar, member
                    last = member.name
        except BROKEN as error:
            bad(self.file, f"no tar, or it breaks off ({error})", f"behind {last}")


def _refused(member: tarfile.TarInfo, name: str, names: dict[str, Any]) -> str:
    """Why a member is not read, or an empty string."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[:1]:
        return "a path that leads out of the archive"
    if member.issym() or member.islnk():
        return "a link"
    if not (member.isfile() or member.isdir()):
        return "neither a file nor a folder"
    if name in names:
        return "twice in the archive"
    return f"larger than {LARGEST >> 20} MiB" if member.size > LARGEST else ""


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        bad(file, f"cannot be read ({error.strerror or error})")
