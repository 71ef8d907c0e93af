"""Workers of this machine, found by the claims in a folder of records."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.records import claims, record


@dataclass(frozen=True)
class Stopped:
    """Processes that were told to stop, each with the run that it trains, and how many runs other machines train."""

    here: dict[int, str]
    elsewhere: int


def stop(out: Path, *, jobs: Collection[str] = ()) -> Stopped:
    """Send SIGTERM to the processes of this machine that train a run of a folder.

    Args:
        out: the folder of records.
        jobs: arrays of Slurm whose workers have been told already.
    """
    told: dict[int, str] = {}
    elsewhere = 0
    for file in [*out.glob(f"*/{claims.FILE}"), *out.glob(f"{record.TRIALS}/*/{claims.FILE}")]:
        claim = claims.read(file.parent)
        if claim is None or claim.gone:
            continue
        if not claim.here:
            elsewhere += 1
        elif _array(claim.pid) not in jobs:
            # of a pool its launcher, which passes it on: it would start another worker in place of one that ends
            pid = _parent(claim.pid) if claim.pool else claim.pid
            if pid and pid not in told and _tell(pid):
                told[pid] = file.parent.name
    return Stopped(told, elsewhere)


def _tell(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError:  # it has just ended, or is another user's
        return False
    return True


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None


def _array(pid: int) -> str | None:
    """The array of Slurm that a process belongs to."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return None
    return next((line.partition("=")[2] for line in variables if line.startswith("SLURM_ARRAY_JOB_ID=")), None)
