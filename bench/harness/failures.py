"""Exceptions that end a run, as the state of its record and an error in three parts."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path

from bench.core.errors import BenchError, Diverged, MachineProblem
from bench.core.files import write_atomic
from bench.core.text import without_secrets
from bench.records.record import ERROR_LOG, State
from bench.records.schema import RunError


def _numbers(*names: str) -> frozenset[int]:
    """The numbers of errors, of those that this system knows."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


FULL = _numbers("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE")
"""A disk that is full or lost, whichever it is."""
DENIED = _numbers("EROFS", "EACCES", "EPERM")
"""A file that may not be written."""
LESS_MEMORY = (
    "Use smaller parts of a batch, with the same result: --on-oom halve, or --set runtime.micro_batch=N, with --retry."
)
GO_ON = "Fix it, then run the same command again: it goes on."


class Reported(Exception):
    """A failure that the run's own process has explained."""

    def __init__(self, state: State, error: RunError) -> None:
        super().__init__(error.what)
        self.state: State = state
        self.error = error


def of_machine(problem: BaseException | None, folder: Path) -> MachineProblem | None:
    """Return what the machine did to a run whose files lie in `folder`; None where the failure is the run's own."""
    if problem is None or isinstance(problem, MachineProblem):
        return problem
    if isinstance(problem, OSError):
        number, file = problem.errno, problem.filename
    else:  # safetensors writes in Rust, and gives the number in its text
        found = re.search(r"\(os error (\d+)\)", str(problem))
        number, file = int(found[1]) if found else None, None
    ours = file is not None and Path(str(file)).absolute().is_relative_to(folder.absolute())
    if number in FULL or (number in DENIED and ours):
        known = "nothing more can be written; finished runs and their records are complete"
        return MachineProblem(f"{file or folder}: {os.strerror(number)}", known, GO_ON)
    return of_machine(problem.__cause__ or problem.__context__, folder)


def explain(problem: BaseException, folder: Path) -> tuple[State, RunError]:
    """Return state and error of an exception; the traceback of an unexpected one goes to the log in `folder`.

    Raises:
        MachineProblem: the machine failed, and not the run.
    """
    if machine := of_machine(problem, folder):
        raise machine from problem
    if isinstance(problem, Reported):
        return problem.state, problem.error
    if isinstance(problem, BenchError):
        return "diverged" if isinstance(problem, Diverged) else "failed", RunError.of(problem)
    text = without_secrets("".join(traceback.format_exception(problem)))
    write_atomic(folder / ERROR_LOG, text.encode(errors="replace"))
    first = next(iter(without_secrets(str(problem)).splitlines()), "")
    known = f"traceback in {ERROR_LOG} of the run's folder"
    what = f"{type(problem).__name__}: {first}".rstrip(": ")
    if out_of_memory(problem):
        return "oom", RunError(what=what, known=known, todo=LESS_MEMORY)
    return "failed", RunError(what=what, known=known, todo="Fix it, then rerun with --retry.")


def out_of_memory(problem: BaseException) -> bool:
    """Whether memory was what a run lacked, in this process or in its own."""
    if isinstance(problem, Reported):
        return problem.state == "oom"
    torch = sys.modules.get("torch")
    if isinstance(problem, MemoryError) or (torch and isinstance(problem, torch.OutOfMemoryError)):
        return True
    # on the CPU torch raises a plain RuntimeError
    return isinstance(problem, RuntimeError) and "DefaultCPUAllocator" in str(problem)
