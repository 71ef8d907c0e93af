"""Images in files of their own: in class folders, in tars of these, which are not unpacked, or named by lists.

In class folders split and class follow from the path alone: `train/cat/1.jpg`, or `cat/1.jpg`. A folder and a tar of it
are read alike, and folders that contain everything are skipped. A list has a path and a class number a line, a usual
layout of VTAB-1k.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Collection, Container, Iterator, Sequence
from functools import cache, partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Self

from bench.core.errors import DataProblem, EnvironmentProblem
from bench.core.files import regular
from tasks.images.reading.decode import SUFFIXES
from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, hashed_file, sha256_of
from tasks.io.readers import errors_naming, malformed, unreadable

SPLITS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Name of a split's folder → split."""
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
"""Files that operating systems add; names that begin with a dot are hidden too."""
TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
LARGEST = 1 << 28
"""Most bytes of one image file, and of one file in a tar: a few compressed bytes can stand for any number."""
MOST_UNPACKED = 100
"""A tar may unpack to so many times its own bytes, and `LARGEST` more."""
LISTS: dict[Split, str] = {"train": "train800val200.txt", "test": "test.txt"}
"""Split → its list: VTAB-1k trains on its 800 and 200 examples together (arXiv 1910.04867)."""
DIGITS = 6
"""Most digits of a class number, so that a wrong column takes no memory."""
BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


def folder_or_tar(place: Path, split: Split | None = None) -> Source:
    """Open class folders, which may be below folders of splits, or a tar of them, of which nothing is unpacked.

    With `split` everything in it belongs to that one.
    """
    if place.is_dir():
        return _open_folder(place, split)
    if is_tar(place):
        files = [hashed_file(place)]
        listing, read = cache(partial(_find_in_tar, place, split)), partial(_read_tar, place)
        return Source(str(place), files[0]["sha256"], listing, read, files)
    problem = f"is no tar ({', '.join(TARS)})" if place.exists() else "does not exist"
    todo = "Give a folder of class folders, or a tar of one."
    raise DataProblem(f"{place} {problem}", f"relative to {Path.cwd()}", todo)


def is_tar(file: Path) -> bool:
    return file.name.casefold().endswith(TARS) and file.is_file()


def _open_folder(folder: Path, split: Split | None) -> Source:
    bad = BadImages()
    names, folders = _walk(folder, bad)
    listing = _arrange(names, folders, bad, split)
    parts = [f"{name}\0" for name in listing.empty]
    parts += [f"{group.number} {group.where}\0" for group in bad.by_reason.values()]
    parts += [f"{e.name}\0{hashed_file(folder / e.name, most=LARGEST)['sha256']}\0" for e in listing.entries]
    return Source(str(folder), sha256_of(*parts), lambda: listing, partial(_read_files, folder))


def _walk(root: Path, bad: BadImages) -> tuple[list[str], list[str]]:
    """List all files and all folders below a folder, relative to it.

    A link to a folder is followed at the level of splits and classes, and is bad further below. A pipe, a device and a
    file that is too large are bad.
    """
    names, folders = list[str](), list[str]()
    for place, below, files in os.walk(root, onerror=unreadable, followlinks=True):
        inner = Path(place).relative_to(root)
        for name in files:
            if not _is_hidden(name) and not _add_misfit(Path(place) / name, str(inner / name), bad):
                names.append(str(inner / name))
        visible = sorted(name for name in below if not _is_hidden(name))
        linked = [name for name in visible if len(inner.parts) > 1 and (Path(place) / name).is_symlink()]
        for name in linked:
            bad.add(str(inner / name), "a link to a folder")
        below[:] = [name for name in visible if name not in linked]  # what os.walk enters
        folders += [str(inner / name) for name in below]
    return names, folders


def _add_misfit(path: Path, name: str, bad: BadImages) -> bool:
    """Add what no image file can be to `bad`, and tell whether that was the case; a broken link is found later."""
    try:
        regular(path, most=LARGEST)
    except OSError:
        return False
    except EnvironmentProblem as error:
        bad.add(
            name, f"larger than {LARGEST >> 20} MiB" if path.is_file() else "neither a file nor a folder", error.known
        )
        return True
    return False


def _find_in_tar(file: Path, split: Split | None) -> Listing:
    bad, names, folders = BadImages(), dict[str, None](), list[str]()
    for member, name, _ in _members(file):
        if _is_hidden(name.replace("..", "")):
            continue
        if reason := _refusal(member, name, names):
            bad.add(f"{file.name}: {name}", reason)
        elif member.isdir():
            folders.append(name)
        else:
            names[name] = None
    return _arrange(names, folders, bad, split)


def _read_tar(file: Path, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield in the order of the file, which is read once."""
    wanted = {entry.name: entry for entry in entries}
    for _, name, content in _members(file, wanted):
        if content is not None:
            yield wanted.pop(name), content


class _Member(tarfile.TarInfo):
    """A member whose header is there as a whole, and whose size has a limit.

    Alone, tarfile takes a tar that breaks off in a header, or between two members, for one that ends there.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the mark of its end is missing")
        member = super().frombuf(buf, encoding, errors)
        if member.size > LARGEST:
            raise _TooLargeError(f"{member.name} is larger than {LARGEST >> 20} MiB")
        return member


class _TooLargeError(Exception):
    """What a tar unpacks to is more than the limit."""


def _members(file: Path, wanted: Container[str] = ()) -> Iterator[tuple[tarfile.TarInfo, str, bytes | None]]:
    """Yield every member and its path, and the content if it is a wanted file."""
    place, size, most = "at its start", 0, LARGEST + MOST_UNPACKED * file.stat().st_size
    try:
        with tarfile.open(file, "r|*", tarinfo=_Member) as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory
                name = str(PurePosixPath(member.name))
                size += member.size
                if size > most:
                    times = f"more than {MOST_UNPACKED} times its own bytes and {LARGEST >> 20} MiB"
                    raise _TooLargeError(f"it unpacks to {times}")
                stream = tar.extractfile(member) if name in wanted and member.isfile() else None
                yield member, name, stream.read() if stream else None
                place = f"after {member.name}"
    except _TooLargeError as error:
        raise malformed(file, place, str(error), "Leave it out, or unpack the tar and name its folder.") from error
    except BROKEN as error:
        raise malformed(file, place, f"not a tar, or it breaks off ({error})") from error


def _refusal(member: tarfile.TarInfo, name: str, names: Collection[str]) -> str:
    """Return why a member is not read, or an empty string."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[:1]:
        return "a path that leads out of the archive"
    if member.issym() or member.islnk():
        return "a link"
    if not (member.isfile() or member.isdir()):
        return "neither a file nor a folder"
    return "twice in the archive" if name in names else ""


def _is_hidden(path: str) -> bool:
    """Tell whether a part of the path is hidden or was added by an operating system."""
    return any(part.startswith(".") or part.casefold() in SYSTEM_FILES for part in PurePosixPath(path).parts)


def _arrange(names: Collection[str], folders: Sequence[str], bad: BadImages, split: Split | None) -> Listing:
    """Return split and class of every file, by their paths; add to `bad` those that have none."""
    paths = {name: PurePosixPath(name).parts for name in sorted(names)}
    # the folders that contain everything, above those of splits and classes
    above = ["/".join(path[:-2]) for name, path in paths.items() if _is_image(name)]
    shared = PurePosixPath(os.path.commonpath(above)).parts if above else ()
    root = tuple(takewhile(lambda folder: folder.casefold() not in SPLITS, shared))
    depth = len(root)
    has_splits = any(len(path) >= depth + 3 and path[depth].casefold() in SPLITS for path in paths.values())
    entries: list[Entry] = []
    ignored = 0
    for name, path in paths.items():
        inner = path[depth:] if path[:depth] == root else ("",)
        folder: Split | None = "train"
        if has_splits:
            folder, inner = SPLITS.get(inner[0].casefold()), inner[1:]
        if not folder or (len(inner) == 1 and not _is_image(name)):
            ignored += 1  # a README or a list of labels beside the classes
        elif len(inner) < 2:
            bad.add(name, "in no class folder")
        else:
            entries.append(Entry(name, split or folder, inner[0]))
    level = depth + 1 + has_splits
    filled = {paths[entry.name][:level] for entry in entries}
    empty: list[str] = []
    for name in sorted(folders):
        path = PurePosixPath(name).parts
        is_class = len(path) == level and (not has_splits or path[depth].casefold() in SPLITS)
        if is_class and path not in filled:
            empty.append(name)
    return Listing(entries, bad, ignored, tuple(empty))


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.casefold() in SUFFIXES


def find_lists(folder: Path) -> Source | None:
    """Return the images of both lists in a folder; None if it has none."""
    if not (folder / LISTS["train"]).is_file():
        return None
    entries = [entry for split, name in LISTS.items() for entry in _entries(folder / name, split)]
    contents = (f"{e.split}\0{e.label}\0{hashed_file(folder / e.name, most=LARGEST)['sha256']}\0" for e in entries)
    classes = range(1 + max((int(entry.label) for entry in entries), default=-1))
    return Source(
        place=str(folder),
        sha256=sha256_of(*contents),
        listing=lambda: Listing(entries, BadImages()),
        read=partial(_read_files, folder),
        files=[hashed_file(folder / name) for name in LISTS.values()],
        classes=tuple(map(str, classes)),
    )


def _entries(file: Path, split: Split) -> Iterator[Entry]:
    with errors_naming(file):
        lines = regular(file, most=LARGEST).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdecimal() or len(label) > DIGITS:
            raise malformed(file, f"line {number}", "expected a path, a space and a class number")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise malformed(file, f"line {number}", f"a path that leads out of the folder: {path}")
        yield Entry(path, split, int(label))


def _read_files(folder: Path, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield every entry with the content of the file in `folder` that it names."""
    for entry in entries:
        with errors_naming(folder / entry.name):
            content = regular(folder / entry.name, most=LARGEST).read_bytes()
        yield entry, content
