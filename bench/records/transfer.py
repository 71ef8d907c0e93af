"""Records from elsewhere: as JSON lines, one record a line, and what becomes of one that a folder may have already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from msgspec import structs

from bench.core.errors import BenchError
from bench.records import record
from bench.records.record import Record

TOO_LARGE = f"a line of more than the {record.MOST_BYTES:,} bytes of a record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one run that was to be sent or fetched.

    Attributes:
        run_id: empty where it is not known.
        why: why it was not sent or fetched; of an imported one the files that it lists and that are not in its folder.
    """

    run_id: str
    state: Literal[
        "sent", "failed", "would send", "imported", "there already", "kept ours", "no record", "bad", "not fetched"
    ]
    why: str = ""


def store(imported: Record, out: Path, *, replace: bool = False) -> Outcome:
    """Write a record into the folder `out`, unless another one is there; a done one takes the place of one that is not.

    With `replace` it takes the place of any. Where a run is mirrored makes no difference between records.
    """
    run_id = imported.run_id
    file = record.folder(out, run_id) / record.FILE
    try:
        stored = record.read(file)
    except BenchError:  # there is none, or it is broken
        stored = None
    if stored and structs.replace(stored, tracking=None) == structs.replace(imported, tracking=None):
        return Outcome(run_id=run_id, state="there already")
    better = stored is not None and imported.state == "done" and stored.state != "done"
    if file.exists() and not replace and not better:
        state = f"state {stored.state}, here {imported.state}" if stored else "it cannot be read"
        return Outcome(run_id=run_id, state="kept ours", why=f"{file} has other content ({state})")
    record.write(imported, file.parent)
    absent = ", ".join(name for name in imported.files if not (file.parent / name).exists())
    return Outcome(run_id=run_id, state="imported", why=absent and f"without {absent}")


def store_lines(stream: BinaryIO, name: str, out: Path) -> Iterator[Outcome]:
    """Check and store the record in every line of a stream, which `name` names in what is said of bad ones."""
    for number, line in enumerate(_lines(stream), 1):
        if line is not None and not line.strip():
            continue
        place = Path(f"{name}:{number}")
        try:
            outcome = store(record.parse(line, place), out) if line is not None else _bad(f"{place}: {TOO_LARGE}")
        except BenchError as problem:
            outcome = _bad(f"{problem.what}: {problem.known}")
        yield outcome


def _bad(why: str) -> Outcome:
    return Outcome(run_id="", state="bad", why=why)


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines; None for one that is larger than any record, which is not kept."""
    most = record.MOST_BYTES
    while line := stream.readline(most + 1):
        if len(line) <= most or line.endswith(b"\n"):
            yield line
            continue
        while len(line) > most and not line.endswith(b"\n"):
            line = stream.readline(most + 1)
        yield None
