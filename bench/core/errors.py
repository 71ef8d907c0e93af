"""Errors in three parts (what, what is known, what to do next), each with the exit code it leads to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import ClassVar

from bench.core.text import without_secrets

OK, SOME_FAILED, USAGE, ENVIRONMENT, CHECK, PREEMPTED, INTERRUPTED = 0, 1, 2, 3, 4, 75, 130


class BenchError(Exception):
    """Something the user can fix: what went wrong in one line, what is known about it, and what to do next.

    All three are free of secrets, wherever they are printed or stored.
    """

    exit_code: ClassVar[int] = SOME_FAILED

    def __init__(self, what: str, known: str = "", todo: str = "") -> None:
        self.what, self.known, self.todo = map(without_secrets, (what, known, todo))
        super().__init__(self.what)

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.known, self.todo) if part)

    def line(self) -> str:
        """Return the three parts in one line: `what (known). todo`."""
        known = f" ({'; '.join(self.known.splitlines())})" if self.known else ""
        return f"{self.what}{known}. {' '.join(self.todo.split())}".rstrip()


class UsageError(BenchError):
    """The command line is wrong: an unknown name, key or value (exit 2)."""

    exit_code = USAGE


class EnvironmentProblem(BenchError):
    """The command is right, but data, weights or packages are not there or are broken (exit 3)."""

    exit_code = ENVIRONMENT


class MachineProblem(EnvironmentProblem):
    """The machine failed a run, its disk or its clock: no other run would end well, so the command stops (exit 3).

    The same command goes on when that is fixed.
    """


class DataProblem(EnvironmentProblem):
    """A data file is missing or malformed; `known` names the file and the line (exit 3)."""


class AbsentTask(EnvironmentProblem):
    """A data directory is there and good, but does not hold this task: named and passed over."""


class CheckFailed(BenchError):
    """A prediction was not met by the measurement (exit 4)."""

    exit_code = CHECK


class Diverged(BenchError):
    """Training diverged: a loss or an output is NaN or infinite (run state `diverged`)."""


def plain(name: str) -> str:
    """Return a name without what people write in other ways: case, `-` and `_`."""
    return re.sub("[-_]", "", name).casefold()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask `Did you mean 'rank'?`, or return an empty string where nothing known is close to `word`."""
    names = {plain(name): name for name in reversed([*known])}
    close = difflib.get_close_matches(plain(word), list(reversed(names)), n=1, cutoff=0.5)
    return f"Did you mean '{names[close[0]]}'?" if close else ""
