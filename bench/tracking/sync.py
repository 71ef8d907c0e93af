"""Runs between a folder and W&B after training: sends what is still offline, and fetches the records of a project.

Fetched records are checked like any file from an unknown source.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from bench.core.errors import BenchError, EnvironmentProblem
from bench.core.text import without_secrets
from bench.records import record
from bench.records.record import DoneRecord, Record, is_done
from bench.records.transfer import Outcome, store
from bench.tracking import mirror
from bench.tracking.account import first_line

if TYPE_CHECKING:
    from wandb.apis.public import Run

_OFFLINE = re.compile(r"offline-run-[0-9]{8}_[0-9]{6}-[0-9a-f]{16}")


def waiting(records: list[Record], *, every: bool = False) -> list[DoneRecord]:
    """Finished runs that are offline, and with `every` those that no mirror has."""

    def is_due(run: DoneRecord) -> bool:
        tracking = run.tracking
        if tracking and tracking.kind != "wandb":
            return False
        return every if not tracking or tracking.error else tracking.mode == "offline"

    return [run for run in records if is_done(run) and is_due(run)]


def sync(out: Path, run: DoneRecord) -> Outcome:
    """Send one run, a record that `waiting` gave and that lies in `out`, and write the new state into its record."""
    folder, tracking = record.folder(out, run.run_id), run.tracking
    if not tracking or tracking.error:
        tracking = mirror(run, folder)
        wrong = tracking.error or ("" if tracking.mode == "online" else "W&B is offline: WANDB_MODE, or no answer")
        record.write(structs.replace(run, tracking=tracking), folder)
    else:
        name = tracking.directory or ""
        if not _OFFLINE.fullmatch(name) or not (folder / "wandb" / name).is_dir():
            return Outcome(run_id=run.run_id, state="failed", why=f"no offline run {name!r} in {folder / 'wandb'}")
        wrong = _wandb_sync(folder / "wandb" / name)
        if not wrong:
            record.write(structs.replace(run, tracking=structs.replace(tracking, mode="online")), folder)
    return Outcome(run_id=run.run_id, state="failed" if wrong else "sent", why=without_secrets(wrong))


def _wandb_sync(folder: Path) -> str:
    """Run `wandb sync`, and return its last line where it fails, else an empty string."""
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = done.returncode or any("error" in line.lower() for line in lines)
    return (lines or [f"wandb sync ended with {done.returncode}"])[-1] if failed else ""


def runs(path: str) -> list[Run]:
    """List the runs of a project `ENTITY/PROJECT` by W&B's API; raises EnvironmentProblem if it cannot be read."""
    import wandb

    try:
        return [run for run in wandb.Api().runs(path)]  # noqa: C416 - list() reads the length, and hides its TypeError
    except Exception as error:
        todo = "Give ENTITY/PROJECT, the end of the project's address."
        raise EnvironmentProblem(f"W&B's project {path} cannot be read", first_line(error), todo) from error


def restore(runs: Iterable[Run], out: Path, *, replace: bool = False) -> Iterator[Outcome]:
    """Write the record of every run into the folder `out`; records that are already there stay, unless `replace`."""
    for run in runs:
        run_id = str(run.id)
        try:
            fetched = _fetch(run)
            yield store(fetched, out, replace=replace) if fetched else Outcome(run_id=run_id, state="no record")
        except BenchError as problem:
            yield Outcome(run_id=run_id, state="bad", why=" ".join(str(problem).split()))
        except Exception as error:  # W&B's packages raise many kinds; the other runs go on
            yield Outcome(run_id=run_id, state="not fetched", why=first_line(error))


def _fetch(run: Run) -> Record | None:
    """Download and check the record of a run; None where it has none. Raises BenchError for an invalid one."""
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
    _check(run_id, size <= record.MOST_BYTES, f"it has {size} bytes, more than any record")
    with tempfile.TemporaryDirectory() as name:
        folder = record.folder(Path(name), run_id)  # refuses a name that is not a run id
        file.download(root=str(folder), replace=True)
        return record.read(folder / record.FILE)


def _check(run_id: str, holds: bool, known: str) -> None:
    if not holds:
        what = f"W&B's file for {run_id!r:.80} is not a record"
        raise EnvironmentProblem(what, known, "It was left out; look at this run on W&B.")
