"""An index of the records in a large folder, so that lists and tables need not read thousands of files every time.

It lies in the user's cache folder and is never the truth: a record comes from it only if the stamp of its file is still
the one that the file had before it was read and checked. Everything else is read from the files, as without an index.

Its files, 16 for each view, are replaced atomically and have a checksum. So commands that run at the same time need no
lock, and a damaged file counts as absent. A SQLite database has locks, which network file systems break, and no
checksum.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from bench import __version__
from bench.core.errors import BenchError, EnvironmentProblem
from bench.core.files import cache_folder, regular, replacing, sweep
from bench.records.fields import SCHEMA
from bench.records.record import FILE, Record, Stamp, collecting_paused, read, separate, stamps
from bench.records.views import Line, Restorer, Slim, line, slim

V = TypeVar("V")

LEAST = 500
"""Records of a folder that is indexed; fewer are read in less than a second."""
SETTLED_NS = 2 * 10**9
"""Age at which a file is indexed. A younger one could change again within a tick of its clock, and keep its stamp."""
SHARE = 100
"""A file of the index is rewritten when more than one in so many of its records had to be read."""
MANY = 100
"""Records of one file of the index whose reading takes so long that the user should know why."""

DIGITS = "0123456789abcdef"
"""First digits of a run id; the records of each have their own files in the index."""

OnMany = Callable[[], object]


class Row(msgspec.Struct, Generic[V], frozen=True, array_like=True, gc=False):
    """A record in a file of the index: its folder's name, the stamp of its file, and what a view has of it."""

    name: str
    stamp: Stamp
    value: V


@dataclass(frozen=True)
class View(Generic[V]):
    """What the index holds of every record for one purpose.

    Attributes:
        of: makes it of a record that was read from its file.
        rows: decodes a file of the index.
    """

    name: str
    of: Callable[[Record], V]
    rows: msgspec.msgpack.Decoder[list[Row[V]]]


LINES = View("lines", line, msgspec.msgpack.Decoder(list[Row[Line]]))
TABLES = View("tables", slim, msgspec.msgpack.Decoder(list[Row[Slim]]))
VIEWS: tuple[View[Any], ...] = (LINES, TABLES)


def load_lines(out: Path, on_many: OnMany = lambda: None) -> tuple[list[Line], list[BenchError]]:
    """What `bench list runs` shows of every record of a folder, and a problem for each that is none, as `load_all`.

    Args:
        on_many: called before many records are read, which takes a while.
    """
    with collecting_paused():
        found = _view(out, LINES, on_many)
        return separate(line(one) if isinstance(one, Record) else one for one in found)


def load_slim(out: Path, on_many: OnMany = lambda: None) -> tuple[list[Record], list[BenchError]]:
    """The records of a folder as `load_all`; what `bench.records.views.NOT_IN_TABLES` names may be missing."""
    restore = Restorer().restore
    with collecting_paused():
        found = _view(out, TABLES, on_many)
        return separate(restore(one) if isinstance(one, Slim) else one for one in found)


def _view(out: Path, view: View[V], on_many: OnMany) -> Iterator[V | Record | BenchError]:
    """Yield what the view has of each record; the record itself where it cannot be packed; or what is wrong with it."""
    found = stamps(out)
    settled = time.time_ns() - SETTLED_NS
    index = _index_of(out) if len(found) >= LEAST else None
    for digit, group in groupby(found, key=lambda name: name[0]):
        names = [*group]
        folder = index if digit in DIGITS else None
        stored = _read(folder, digit, view) if folder else ()
        kept = {row.name: row for row in stored if found.get(row.name) == row.stamp}
        if len(names) - len(kept) > MANY:
            on_many()
        views = (view,) if kept else VIEWS  # a folder is read once, not once for each view
        fresh: dict[str, list[Row[Any]]] = {one.name: [] for one in views}
        for name in names:
            if name in kept:
                yield kept[name].value
                continue
            try:
                record = read(out / name / FILE)
            except BenchError as problem:
                yield problem
                continue
            try:
                packed = {one.name: msgspec.Raw(msgspec.msgpack.encode(one.of(record))) for one in views}
            except UnicodeEncodeError:  # half a surrogate pair, which JSON can hold
                yield record
                continue
            yield view.of(record)
            if max(found[name][:2]) < settled:
                for one in views:
                    fresh[one.name].append(Row(name, found[name], packed[one.name]))
        if folder and len(fresh[view.name]) * SHARE > len(names):
            for one in views:
                _write(folder, digit, one, [*kept.values(), *fresh[one.name]])


def _index_of(out: Path) -> Path | None:
    """The folder of the index; None without a home."""
    try:
        return cache_folder() / "records" / hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:32]
    except (OSError, RuntimeError):
        return None


def _read(folder: Path, digit: str, view: View[V]) -> Sequence[Row[V]]:
    """The rows in a file of the index; none if it is absent, damaged, or of another version."""
    try:
        content = regular(folder / f"{digit}.{view.name}").read_bytes()
        packed = content[len(_key()) + 32 :]
        if content != _key() + hashlib.sha256(packed).digest() + packed:
            return ()
        return view.rows.decode(zlib.decompress(packed))
    except (OSError, EnvironmentProblem, zlib.error, msgspec.MsgspecError):
        return ()


def _write(folder: Path, digit: str, view: View[V], rows: Sequence[Row[V]]) -> None:
    packed = zlib.compress(msgspec.msgpack.encode(rows), 1)
    with suppress(OSError):  # a full disk, or a folder that cannot be written: the next command reads the files again
        sweep(folder)
        with replacing(folder / f"{digit}.{view.name}", private=True) as temporary:
            temporary.write_bytes(_key() + hashlib.sha256(packed).digest() + packed)


@cache
def _key() -> bytes:
    """A hash of all that decides what a file of the index says of a record, so that no other version reads it."""
    digest = hashlib.sha256(f"{__version__} {SCHEMA} {msgspec.__version__}".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()
