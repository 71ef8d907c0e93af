"""Records from W&B: what a project's runs brought along, checked like any file of a stranger."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msgspec import structs

from bench.core.errors import BenchError, EnvironmentProblem
from bench.records import record

LARGEST = 64 * 2**20
"""A larger `record.json` is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of one W&B run."""

    run_id: str
    state: Literal["imported", "there already", "kept ours", "no record", "bad", "not fetched"]
    why: str = ""


def runs(path: str) -> Iterable[Any]:
    """The runs of a project `ENTITY/PROJECT`, by W&B's API.

    Raises:
        EnvironmentProblem: it cannot be read.
    """
    import wandb

    found: list[Any] = []
    try:
        for run in wandb.Api().runs(path):  # not list(): it asks for the length first, and swallows a TypeError there
            found.append(run)
    except Exception as error:
        raise EnvironmentProblem(
            f"W&B's project {path} cannot be read",
            _first_line(error),
            "ENTITY/PROJECT is how the project's address ends.",
        ) from error
    return found


def restore(found: Iterable[Any], out: Path, *, replace: bool = False) -> Iterator[Restored]:
    """Write the record of every run into `out`; what is there already stays, unless `replace`.

    Args:
        found: runs of W&B's API: `id`, `state`, `file(name).download(root, replace)`.
        out: folder of records.
        replace: write over a record that says something else.
    """
    for run in found:
        name = str(run.id)
        try:
            made = _fetch(run)
            yield _keep(made, out, replace=replace) if made else Restored(run_id=name, state="no record")
        except BenchError as problem:
            yield Restored(run_id=name, state="bad", why=" ".join(str(problem).split()))
        except Exception as error:  # W&B's packages raise many kinds; the other runs can be had nevertheless
            yield Restored(run_id=name, state="not fetched", why=_first_line(error))


def _first_line(error: Exception) -> str:
    from bench.tracking.account import hidden

    return hidden(f"{type(error).__name__}: {error}").splitlines()[0]


def _fetch(run: Any) -> record.Record | None:
    """Its record, checked; None where it brought none.

    Raises:
        BenchError: it is not a valid record, or another run's.
    """
    run_id = str(run.id)
    try:
        file = run.file(record.FILE)
    except Exception as error:
        if isinstance(getattr(error, "exc", error), IndexError):  # how the API says that there is no such file
            return None
        raise
    size = int(file.size or 0)
    if not size:  # or names it, with nothing in it
        return None
    _check(run_id, file.name == record.FILE, f"another file than {record.FILE}, {file.name!r:.80}")
    _check(run_id, size <= LARGEST, f"{size} bytes, more than a record has")
    with tempfile.TemporaryDirectory() as name:
        folder = record.folder(Path(name), run_id)  # refuses what is no run id
        file.download(root=str(folder), replace=True)
        size = (folder / record.FILE).stat().st_size
        _check(run_id, size <= LARGEST, f"{size} bytes, more than a record has")
        return record.read(folder / record.FILE)


def _check(run_id: str, holds: bool, known: str) -> None:
    if not holds:
        raise EnvironmentProblem(f"what W&B gives for {run_id!r:.80} is no record", known, "It was left out.")


def _keep(made: record.Record, out: Path, *, replace: bool) -> Restored:
    run_id = made.run_id
    folder = record.folder(out, run_id)
    if (folder / record.FILE).exists():
        there = _told(folder)
        if there is not None and _same(there, made):
            return Restored(run_id=run_id, state="there already")
        if not replace:
            return Restored(run_id=run_id, state="kept ours", why=f"{folder / record.FILE} says something else")
    record.write(made, folder)
    return Restored(run_id=run_id, state="imported")


def _told(folder: Path) -> record.Record | None:
    try:
        return record.read(folder / record.FILE)
    except BenchError:
        return None


def _same(one: record.Record, other: record.Record) -> bool:
    """Whether they differ in nothing but where they are mirrored."""
    return structs.replace(one, tracking=None) == structs.replace(other, tracking=None)
