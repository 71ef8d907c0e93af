"""Sending finished offline runs to W&B: `wandb sync` for each, which its record then states."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from msgspec import structs

from bench.records import record
from bench.records.record import DoneRecord, Record, is_done
from bench.tracking import Outcome, mirror
from bench.tracking.account import hidden

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
    return Outcome(run_id=run.run_id, state="failed" if wrong else "sent", why=hidden(wrong))


def _wandb_sync(folder: Path) -> str:
    """Run `wandb sync`, and return its last line where it fails, else an empty string."""
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    failed = done.returncode or any("error" in line.lower() for line in lines)
    return (lines or [f"wandb sync ended with {done.returncode}"])[-1] if failed else ""
