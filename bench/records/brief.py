"""The few fields of a record that say where its run stands, read faster than the whole record."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from bench.records.fields import RunId, State
from bench.records.record import FILE, MOST_BYTES, has_digest

LONGEST_S = 1e12
"""So that sums of what strangers write stay finite."""


class Spec(msgspec.Struct, frozen=True, gc=False):
    method: str
    task: str
    seed: int
    holdout: int
    max_steps: int | None
    options: Options


class Options(msgspec.Struct, frozen=True, gc=False):
    runtime: dict[str, object]


class Cost(msgspec.Struct, frozen=True, gc=False):
    train_s: float
    eval_s: float
    truncation_s: float = 0.0


class Error(msgspec.Struct, frozen=True, gc=False):
    what: str


class Brief(msgspec.Struct, frozen=True, gc=False):
    """A part of `bench.records.schema.Record`. Other fields are covered by the digest alone."""

    schema: Literal[2]
    run_id: RunId
    group_id: RunId
    state: State
    spec: Spec
    error: Error | None = None
    cost: Cost | None = None
    digest: str = ""

    @property
    def seconds(self) -> float | None:
        """How long the run took; None where it never trained."""
        return min(self.cost.train_s + self.cost.eval_s + self.cost.truncation_s, LONGEST_S) if self.cost else None


class Seen(NamedTuple):
    """A record file as it was looked at.

    Attributes:
        stamp: size, inode and time of change in nanoseconds. A file with the same stamp has the same content, since
            records are replaced and never written in place.
        written: time of change, in seconds since 1970.
        brief: None if the file is no record of this folder.
    """

    stamp: tuple[int, int, int]
    written: float
    brief: Brief | None


_DECODER = msgspec.json.Decoder(Brief)


def look(folder: Path, before: Seen | None) -> Seen | None:
    """Look at the record of a run's folder; None if there is none. It is read if it has changed since `before`."""
    path = folder / FILE
    try:
        status = path.stat()
        stamp = status.st_size, status.st_ino, status.st_mtime_ns
        if before and before.stamp == stamp:
            return before
        return Seen(stamp, status.st_mtime, _read(path, status))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # it may not be read
        return Seen((0, 0, 0), 0.0, None)


def _read(path: Path, status: os.stat_result) -> Brief | None:
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        return None
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES)
    try:
        try:
            found = _DECODER.decode(content)
        except msgspec.MsgspecError:  # to read what msgspec does not: lone surrogates
            found = msgspec.convert(json.loads(content.decode()), Brief)
        whole = not found.digest or has_digest(content, found.digest)  # takes most of the time
    except (ValueError, RecursionError):
        return None
    return found if whole and found.run_id == path.parent.name else None
