"""Where a job of a scheduler writes its log, noted beside the records of the runs that it trains."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from bench.core.files import write_atomic

VARIABLE = "BENCH_JOB_LOG"
"""Environment variable that names the log of this process; the scripts of `--launcher slurm` set it."""
FILE = "job_log.txt"
MOST_BYTES = 4096


def note(folder: Path) -> None:
    """Note beside a run's record where this process writes its log; a process that nobody told notes nothing."""
    path = os.environ.get(VARIABLE)
    with suppress(OSError):  # a run does not fail for it
        if path:
            write_atomic(folder / FILE, path.encode(errors="surrogateescape"))
        else:
            (folder / FILE).unlink(missing_ok=True)  # of an earlier attempt elsewhere


def read(folder: Path) -> str:
    """The log of a run's last attempt, an untrusted text; empty where there is none."""
    try:
        with (folder / FILE).open("rb") as stream:
            return stream.read(MOST_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
