"""Arrays of workers that were submitted for a folder of records, each noted in `<out>/slurm/array-<job>.json`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from bench.core.errors import BenchError
from bench.core.files import regular, write_atomic

FOLDER = "slurm"
"""Folder in `<out>` for what belongs to Slurm: arrays, plans, scripts and logs."""
MOST_BYTES = 4096
Digits = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}\Z")]


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """One array.

    Attributes:
        job: its id.
        name: its name in the queue, which has the hash of the plan.
        workers: its tasks.
        logs: pattern of the files that they write.
    """

    job: Digits
    name: str
    workers: int
    logs: str


def note(array: Array, out: Path) -> None:
    """Write an array down; raises OSError where that is impossible."""
    write_atomic(out / FOLDER / f"array-{array.job}.json", msgspec.json.encode(array))


def noted(out: Path) -> list[Array]:
    """List the arrays of a folder of records, oldest first; files that are none are passed over."""
    found: list[Array] = []
    for file in (out / FOLDER).glob("array-*.json"):
        with suppress(OSError, BenchError, msgspec.MsgspecError):
            found.append(msgspec.json.decode(regular(file, most=MOST_BYTES).read_bytes(), type=Array))
    return sorted(found, key=lambda array: int(array.job))
