"""Exceptions that end a run, as the state of its record and an error in three parts."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from bench.core.errors import BenchError, Diverged
from bench.core.text import without_secrets
from bench.records.record import State
from bench.records.schema import RunError

LOG = "error.log"
"""File in the run's folder with the traceback of an unexpected error."""


class Reported(Exception):
    """A failure that the run's own process has explained."""

    def __init__(self, state: State, error: RunError) -> None:
        super().__init__(error.what)
        self.state: State = state
        self.error = error


def explain(problem: BaseException, folder: Path) -> tuple[State, RunError]:
    """Return state and error of an exception; the traceback of an unexpected one goes to the log in `folder`."""
    if isinstance(problem, Reported):
        return problem.state, problem.error
    if isinstance(problem, BenchError):
        return "diverged" if isinstance(problem, Diverged) else "failed", RunError.of(problem)
    text = without_secrets("".join(traceback.format_exception(problem)))
    (folder / LOG).write_text(text, encoding="utf-8", errors="replace")
    first = next(iter(without_secrets(str(problem)).splitlines()), "")
    known = f"traceback in {LOG} of the run's folder"
    what = f"{type(problem).__name__}: {first}".rstrip(": ")
    if _out_of_memory(problem):
        less = (
            "Use smaller parts of a batch, with the same result: --set runtime.micro_batch=N (or eval_batch) --retry."
        )
        return "oom", RunError(what=what, known=known, todo=less)
    return "failed", RunError(what=what, known=known, todo="Fix it, then rerun with --retry.")


def _out_of_memory(problem: BaseException) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(problem, MemoryError) or (torch and isinstance(problem, torch.OutOfMemoryError)):
        return True
    # on the CPU torch raises a plain RuntimeError
    return isinstance(problem, RuntimeError) and "DefaultCPUAllocator" in str(problem)
