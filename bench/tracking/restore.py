"""Records from the runs of a W&B project, checked like any file from an unknown source."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msgspec import structs

from bench.core.errors import BenchError, EnvironmentProblem
from bench.records import record

MAX_BYTES = 64 * 2**20
"""Largest `record.json` that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The outcome for one W&B run."""

    run_id: str
    state: Literal["imported", "there already", "kept ours", "no record", "bad", "not fetched"]
    why: str = ""


def runs(path: str) -> Iterable[Any]:
    """List the runs of a project `ENTITY/PROJECT` by W&B's API.

    Raises:
        EnvironmentProblem: it cannot be read.
    """
    import wandb

    found: list[Any] = []
    try:
        for run in wandb.Api().runs(path):  # not list(), which reads the length first and hides a TypeError in it
            found.append(run)
    except Exception as error:
        raise EnvironmentProblem(
            f"W&B's project {path} cannot be read",
            _first_line(error),
            "Give ENTITY/PROJECT, the end of the project's address.",
        ) from error
    return found


def restore(found: Iterable[Any], out: Path, *, replace: bool = False) -> Iterator[Restored]:
    """Write the record of every run into `out`; records that are already there stay, unless `replace`.

    Args:
        found: runs of W&B's API: `id`, `state`, `file(name).download(root, replace)`.
        out: folder of records.
        replace: overwrite a record with other content.
    """
    for run in found:
        name = str(run.id)
        try:
            made = _fetch(run)
            yield _store(made, out, replace=replace) if made else Restored(run_id=name, state="no record")
        except BenchError as problem:
            yield Restored(run_id=name, state="bad", why=" ".join(str(problem).split()))
        except Exception as error:  # W&B's packages raise many kinds; the other runs go on
            yield Restored(run_id=name, state="not fetched", why=_first_line(error))


def _first_line(error: Exception) -> str:
    from bench.tracking.account import hidden

    return hidden(f"{type(error).__name__}: {error}").splitlines()[0]


def _fetch(run: Any) -> record.Record | None:
    """Download and check the record of a run; None where it has none.

    Raises:
        BenchError: it is not a valid record, or belongs to another run.
    """
    run_id = str(run.id)
    try:
        file = run.file(record.FILE)
    except Exception as error:
        if isinstance(getattr(error, "exc", error), IndexError):  # the API's error for a file that does not exist
            return None
        raise
    size = int(file.size or 0)
    if not size:  # the API may also list a missing file as an empty one
        return None
    _check(run_id, file.name == record.FILE, f"it is the file {file.name!r:.80}, not {record.FILE}")
    _check(run_id, size <= MAX_BYTES, f"it has {size} bytes, more than any record")
    with tempfile.TemporaryDirectory() as name:
        folder = record.folder(Path(name), run_id)  # refuses a name that is not a run id
        file.download(root=str(folder), replace=True)
        size = (folder / record.FILE).stat().st_size
        _check(run_id, size <= MAX_BYTES, f"it has {size} bytes, more than any record")
        return record.read(folder / record.FILE)


def _check(run_id: str, holds: bool, known: str) -> None:
    if not holds:
        raise EnvironmentProblem(
            f"W&B's file for {run_id!r:.80} is not a record", known, "It was left out; look at this run on W&B."
        )


def _store(imported: record.Record, out: Path, *, replace: bool) -> Restored:
    run_id = imported.run_id
    folder = record.folder(out, run_id)
    if (folder / record.FILE).exists():
        there = _read_or_none(folder)
        if there is not None and _same(there, imported):
            return Restored(run_id=run_id, state="there already")
        if not replace:
            return Restored(run_id=run_id, state="kept ours", why=f"{folder / record.FILE} has other content")
    record.write(imported, folder)
    return Restored(run_id=run_id, state="imported")


def _read_or_none(folder: Path) -> record.Record | None:
    try:
        return record.read(folder / record.FILE)
    except BenchError:
        return None


def _same(one: record.Record, other: record.Record) -> bool:
    """Whether two records are equal but for their mirrors."""
    return structs.replace(one, tracking=None) == structs.replace(other, tracking=None)
