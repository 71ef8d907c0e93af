"""Slurm's queue: what is in it, what it allows, and how jobs leave it. Accounting (`sacct`) is not asked."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bench.core.errors import EnvironmentProblem

ANSWER_S = 120
"""A controller that is busy lets its clients wait, but not for ever."""
Waiting = Mapping[str, Counter[str]]
"""Job id of an array → state (`running`, `pending`, …) → number of its tasks."""


def most_tasks() -> int | None:
    """The largest array that the site takes; None where it does not say."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), flags=re.MULTILINE)
    return int(found[1]) if found else None


def waiting(names: Mapping[str, str]) -> Waiting:
    """Count the tasks of arrays that have not ended.

    Args:
        names: job id → name of the array. A job of another name is somebody else's: ids begin anew where a site
            loses its state, and a folder of records may come from anywhere.

    Raises:
        EnvironmentProblem: there is no Slurm here, or it does not answer.
    """
    found: dict[str, Counter[str]] = {}
    for job, name in names.items():  # with one id it asks for this job, with several for the whole queue
        try:
            answer = _ask("squeue", "--noheader", "--array", "--format=%F|%T|%j", f"--jobs={job}")
        except EnvironmentProblem as problem:
            if "Invalid job id" not in problem.known:
                raise
            continue  # it ended so long ago that Slurm has forgotten it
        rows = [line.strip().split("|", 2) for line in answer.splitlines() if line.strip()]
        states = Counter(state.lower() for _, state, called in rows if called == name)
        if states:
            found[job] = states
    return found


def cancel(jobs: Iterable[str]) -> None:
    """Take arrays out of the queue; tasks that run are told to stop.

    Raises:
        EnvironmentProblem: Slurm does not allow it.
    """
    _ask("scancel", *jobs)


def in_words(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def missing(program: str) -> EnvironmentProblem:
    known = "Slurm's commands are installed on the cluster's login nodes"
    return EnvironmentProblem(f"there is no {program} on this machine", known, "Run the same command there.")


def _ask(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=ANSWER_S, check=False)
    except FileNotFoundError as error:
        raise missing(argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise _refused(argv, f"no answer within {ANSWER_S} s") from error
    if done.returncode:
        raise _refused(argv, done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout


def _refused(argv: Sequence[str], known: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{argv[0]} failed", known, "Wait until Slurm answers, then run the same command again.")
