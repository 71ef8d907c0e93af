"""Sending finished offline runs to W&B: `wandb sync` for each, which its record then states."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import structs

from bench.records import record
from bench.records.record import DoneRecord, Record, is_done
from bench.tracking.account import hidden

_OFFLINE = re.compile(r"offline-run-[0-9]{8}_[0-9]{6}-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The outcome for one run; `why` is the reason where it was not sent."""

    run_id: str
    state: Literal["sent", "failed", "would send"]
    why: str = ""


def waiting(records: list[Record], *, every: bool = False) -> list[DoneRecord]:
    """Finished runs that are offline, and with `every` those that no mirror has."""

    def wanted(run: DoneRecord) -> bool:
        there = run.tracking
        if there and there.kind != "wandb":
            return False
        return every if not there or there.error else there.mode == "offline"

    return [run for run in records if is_done(run) and wanted(run)]


def sync(out: Path, run: DoneRecord, *, send: Callable[[Path], str] | None = None) -> Sent:
    """Send one run, and write the new state into its record.

    Args:
        out: folder of the records.
        run: a record that `waiting` gave.
        send: sends the folder of an offline run and returns the error, or an empty string; None: `wandb sync`.
    """
    folder, there = record.folder(out, run.run_id), run.tracking
    if not there or there.error:
        from bench.tracking import mirror

        tracking = mirror(run, folder)
        wrong = tracking.error or ("" if tracking.mode == "online" else "W&B is offline: WANDB_MODE, or no answer")
        record.write(structs.replace(run, tracking=tracking), folder)
    else:
        name = there.directory or ""
        if not _OFFLINE.fullmatch(name) or not (folder / "wandb" / name).is_dir():
            return Sent(run_id=run.run_id, state="failed", why=f"no offline run {name!r} in {folder / 'wandb'}")
        wrong = (send or _wandb_sync)(folder / "wandb" / name)
        if not wrong:
            record.write(structs.replace(run, tracking=structs.replace(there, mode="online")), folder)
    return Sent(run_id=run.run_id, state="failed" if wrong else "sent", why=hidden(wrong))


def _wandb_sync(folder: Path) -> str:
    """Run `wandb sync`, and return its last line where it fails, else an empty string."""
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = done.returncode or any("error" in line.lower() for line in lines)
    return (lines or [f"wandb sync ended with {done.returncode}"])[-1] if failed else ""
