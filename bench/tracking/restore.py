"""Records from W&B: what a project's runs brought along, checked like any file of a stranger."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import record
from bench.errors import BenchError, EnvironmentProblem

LARGEST = 64 * 2**20
"""A larger `record.json` is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of one W&B run."""

    run_id: str
    state: Literal["imported", "there already", "kept ours", "no record", "bad"]
    why: str = ""


def runs(path: str) -> Iterable[Any]:
    """The runs of a project `ENTITY/PROJECT`, by W&B's API.

    Raises:
        EnvironmentProblem: it cannot be read.
    """
    import wandb

    try:
        return list(wandb.Api().runs(path))
    except Exception as error:
        from bench.tracking.account import hidden

        known = hidden(f"{type(error).__name__}: {error}").splitlines()[0]
        raise EnvironmentProblem(
            f"W&B's project {path} cannot be read", known, "ENTITY/PROJECT is how the project's address ends."
        ) from error


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


def _fetch(run: Any) -> record.Record | None:
    """Its record, checked; None where it brought none.

    Raises:
        BenchError: it is not a valid record, or another run's.
    """
    run_id = str(run.id)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "download"
        try:
            file = run.file(record.FILE)
            if int(getattr(file, "size", 0) or 0) > LARGEST:
                raise EnvironmentProblem(f"{record.FILE} of {run_id} is larger than a record", f"{file.size} bytes", "")
            file.download(root=str(place), replace=True)
            text = (place / record.FILE).read_text(encoding="utf-8")
        except (OSError, ValueError):  # what the API raises for a file that is not there
            return None
        checked = record.folder(Path(folder), run_id)  # refuses what is no run id
        checked.mkdir()
        (checked / record.FILE).write_text(text, encoding="utf-8")
        return record.read(checked / record.FILE)


def _keep(made: record.Record, out: Path, *, replace: bool) -> Restored:
    run_id = made["run_id"]
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
    return json.dumps({**one, "tracking": None}, sort_keys=True) == json.dumps(
        {**other, "tracking": None}, sort_keys=True
    )
