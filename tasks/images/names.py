"""Which split and class a picture belongs to, by where it lies: `train/cat/1.jpg`, or `cat/1.jpg`.

A folder and a tar of it are read alike: only the names count, and what all of them lie in is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from tasks.images.decode import SUFFIXES
from tasks.images.rejects import Rejects

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
"""Folder of a split → its name."""
IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
"""What other programs leave; so are names that begin with a dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One picture.

    Attributes:
        name: as errors name it.
        split: train, validation or test.
        label: name of its class, or the class's number.
        key: where the source finds it.
    """

    name: str
    split: str
    label: str | int
    key: str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source holds.

    Attributes:
        entries: its pictures, by name.
        rejects: what is not one of them.
        passed: files that belong to no split.
        empty: class folders without a file, as `train/cat`.
    """

    entries: list[Entry]
    rejects: Rejects
    passed: int = 0
    empty: tuple[str, ...] = field(default=())


def hidden(name: str) -> bool:
    """Whether a part of the path is none of the user's data."""
    return any(part.startswith(".") or part.casefold() in IGNORED for part in PurePosixPath(name).parts)


def arrange(names: Sequence[str], rejects: Rejects, folders: Sequence[str] = ()) -> Listing:
    """Split and class of every file.

    Args:
        names: of files, parts separated by `/`.
        rejects: what was found unusable before; more is added.
        folders: names of folders, to find classes that hold nothing.
    """
    parts = {name: PurePosixPath(name).parts for name in sorted(names)}
    above = _shared([path for name, path in parts.items() if _is_image(name)])
    depth = len(above)
    has_splits = any(len(p) >= depth + 3 and p[depth].casefold() in SPLITS for p in parts.values())
    entries: list[Entry] = []
    passed = 0
    for name, path in parts.items():
        inner = path[depth:] if path[:depth] == above else ("",)
        split = "train"
        if has_splits:
            split, inner = SPLITS.get(inner[0].casefold(), ""), inner[1:]
        if not split or (len(inner) == 1 and not _is_image(name)):
            passed += 1  # a README or a list of labels beside the classes
        elif len(inner) < 2:
            rejects.add(name, "in no class folder")
        else:
            entries.append(Entry(name=name, split=split, label=inner[0], key=name))
    full = {name for entry in entries for name in map(str, PurePosixPath(entry.name).parents)}
    level = depth + 1 + has_splits
    classes = [(name, PurePosixPath(name).parts) for name in sorted(folders)]
    empty = tuple(
        name
        for name, path in classes
        if len(path) == level and name not in full and (not has_splits or path[depth].casefold() in SPLITS)
    )
    return Listing(entries=entries, rejects=rejects, passed=passed, empty=empty)


def of_split(listing: Listing, split: str) -> Listing:
    """The same with everything in one split; as it is where `split` is empty."""
    return replace(listing, entries=[replace(entry, split=split) for entry in listing.entries]) if split else listing


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.casefold() in SUFFIXES


def _shared(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that everything lies in, short of a split's and of the classes'."""
    first = paths[0] if paths else ()
    depth = 0
    while paths and all(len(path) > depth + 2 and path[depth] == first[depth] for path in paths):
        if first[depth].casefold() in SPLITS:
            break
        depth += 1
    return first[:depth]
