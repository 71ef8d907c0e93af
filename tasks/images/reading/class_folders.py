"""Images in class folders, and in tars of class folders, which are read without being unpacked.

Split and class follow from the path alone: `train/cat/1.jpg`, or `cat/1.jpg`. A folder and a tar of it are read alike,
and folders that contain everything are skipped.
"""

from __future__ import annotations

import itertools
import lzma
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

from bench.core.errors import DataProblem
from tasks.images.reading.decode import SUFFIXES
from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, hashed_file, sha256_of
from tasks.io.readers import malformed

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
"""Most bytes of one file in a tar: a few compressed bytes can stand for any number."""
BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


def open_folder(folder: Path, split: Split | None = None) -> Source:
    """Open class folders, which may be below folders of splits.

    Args:
        folder: contains them.
        split: the split of everything in it; by default the names of folders decide.

    Raises:
        DataProblem: something in it cannot be read.
    """
    bad = BadImages()
    names, folders = _walk(folder, bad)
    found = arrange(names, folders, bad, split)
    entries = [replace(entry, content=folder / entry.name) for entry in found.entries]
    parts = [f"{name}\0" for name in found.empty]
    parts += [f"{group.number} {group.where}\0" for group in bad.by_reason.values()]
    parts += [f"{entry.name}\0{hashed_file(folder / entry.name)['sha256']}\0" for entry in entries]
    return Source(str(folder), sha256_of(*parts), lambda: replace(found, entries=entries))


def _walk(root: Path, bad: BadImages) -> tuple[list[str], list[str]]:
    """List all files and all folders below a folder, relative to it.

    A link to a folder is followed at the level of splits and classes, and is bad further below.
    """
    names: list[str] = []
    folders: list[str] = []
    for place, below, files in os.walk(root, onerror=_unreadable, followlinks=True):
        inner = Path(place).relative_to(root)
        names += [str(inner / name) for name in files if not is_hidden(name)]
        visible = sorted(name for name in below if not is_hidden(name))
        linked = [name for name in visible if len(inner.parts) > 1 and (Path(place) / name).is_symlink()]
        for name in linked:
            bad.add(str(inner / name), "a link to a folder")
        below[:] = [name for name in visible if name not in linked]  # what os.walk enters
        folders += [str(inner / name) for name in below]
    return names, folders


def _unreadable(error: OSError) -> NoReturn:
    raise DataProblem(f"{error.filename} cannot be read", str(error), "Fix its permissions.") from error


def open_tar(file: Path, split: Split | None = None) -> Source:
    """Open a tar of class folders, compressed or not; nothing is unpacked onto the disk.

    Args:
        file: the tar.
        split: as for `open_folder`.

    Raises:
        DataProblem: it cannot be read; later, when it is read, that it is not a tar, or is truncated.
    """
    files = [hashed_file(file)]
    find, read = partial(_find_in_tar, file, split), partial(_read_tar, file)
    return Source(str(file), files[0]["sha256"], find, files, read=read)


def _find_in_tar(file: Path, split: Split | None) -> Listing:
    bad, names, folders = BadImages(), dict[str, None](), list[str]()
    for _, member in _members(file):
        name = str(PurePosixPath(member.name))
        if is_hidden(name.replace("..", "")):
            continue
        if reason := _refusal(member, name, names):
            bad.add(f"{file.name}: {name}", reason)
        elif member.isdir():
            folders.append(name)
        else:
            names[name] = None
    return arrange(names, folders, bad, split)


def _read_tar(file: Path, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield in the order of the file, which is read once."""
    wanted = {entry.name: entry for entry in entries}
    for tar, member in _members(file):
        entry = wanted.pop(str(PurePosixPath(member.name)), None) if member.isfile() else None
        if entry is None:
            continue
        try:
            stream = tar.extractfile(member)
            data = stream.read() if stream else b""
        except BROKEN as error:
            raise malformed(file, member.name, f"the tar breaks off ({error})") from error
        yield entry, data


def _members(file: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    last = "at its start"
    try:
        with tarfile.open(file, "r|*") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory
                yield tar, member
                last = f"after {member.name}"
    except BROKEN as error:
        raise malformed(file, last, f"not a tar, or it breaks off ({error})") from error


def _refusal(member: tarfile.TarInfo, name: str, names: Collection[str]) -> str:
    """Return why a member is not read, or an empty string."""
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


def is_hidden(path: str) -> bool:
    """Whether a part of the path is hidden or was added by an operating system."""
    return any(part.startswith(".") or part.casefold() in SYSTEM_FILES for part in PurePosixPath(path).parts)


def arrange(names: Collection[str], folders: Sequence[str], bad: BadImages, split: Split | None = None) -> Listing:
    """Return split and class of every file.

    Args:
        names: paths of files, with `/` between their parts.
        folders: paths of folders, in which classes without a file are found.
        bad: what was found to be bad before; more is added.
        split: the split of every file; by default its path says it.
    """
    paths = {name: PurePosixPath(name).parts for name in sorted(names)}
    root = _shared_root([path for name, path in paths.items() if _is_image(name)])
    depth = len(root)
    has_splits = any(len(path) >= depth + 3 and path[depth].casefold() in SPLITS for path in paths.values())
    entries: list[Entry] = []
    ignored = 0
    for name, path in paths.items():
        inner = path[depth:] if path[:depth] == root else ("",)
        found: Split | None = "train"
        if has_splits:
            found, inner = SPLITS.get(inner[0].casefold()), inner[1:]
        if not found or (len(inner) == 1 and not _is_image(name)):
            ignored += 1  # a README or a list of labels beside the classes
        elif len(inner) < 2:
            bad.add(name, "in no class folder")
        else:
            entries.append(Entry(name=name, split=split or found, label=inner[0]))
    level = depth + 1 + has_splits
    filled = {paths[entry.name][:level] for entry in entries}
    empty = tuple(
        name
        for name, path in ((name, PurePosixPath(name).parts) for name in sorted(folders))
        if len(path) == level and path not in filled and (not has_splits or path[depth].casefold() in SPLITS)
    )
    return Listing(entries=entries, bad=bad, ignored=ignored, empty=empty)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.casefold() in SUFFIXES


def _shared_root(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders that contain everything, above those of splits and classes."""
    shared = os.path.commonpath(["/".join(path[:-2]) for path in paths]) if paths else ""
    return tuple(itertools.takewhile(lambda name: name.casefold() not in SPLITS, PurePosixPath(shared).parts))
