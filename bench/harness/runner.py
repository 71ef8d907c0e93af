"""Runs a plan: skips what is done, records how every run ends, and never lets one run stop the others."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

from msgspec import structs

from bench.core.errors import EnvironmentProblem
from bench.harness import selection
from bench.harness.attempt import FINISHED, Attempts, existing, stopped
from bench.harness.nodes import Nodes
from bench.harness.plan_text import notes
from bench.harness.planner import Plan, PlannedRun
from bench.harness.pool import Jobs, count_workers, run_pool
from bench.harness.progress import Progress, make_progress
from bench.harness.signals import Preempted, preemptible
from bench.records import record
from bench.records.claims import Claims
from bench.records.schema import Record

POLL_S = 0.5
"""How often a command looks whether other processes have finished the runs that it still waits for."""


def run_plan(
    plan: Plan, *, jobs: Jobs = 1, wait: bool = True, verbose: bool = False, nodes: Nodes | None = None
) -> Generator[Record]:
    """Run a plan, and yield each run's record as soon as it has ended.

    What is done is skipped, what another process trains now is waited for, and a run that fails never stops the others.
    Trials of learning rates, those beyond the candidates too, come first and are not yielded.

    Args:
        jobs: how many runs are trained at a time, each in a process that makes many of them; 1: in this process.
        wait: see `work`.
        nodes: the other nodes, where each run has several (`bench.harness.nodes.lead`).

    Raises:
        EnvironmentProblem: there are no other nodes though the runs need them, the folder of records cannot be written,
            a record in it is of another version, a device is missing, or the machine fails (`MachineProblem`).
        KeyboardInterrupt, Preempted: the command is to stop; finished runs stay finished.
    """
    request, count = plan.request, plan.runs[0].spec.options.runtime.nodes
    if count > 1 and nodes is None:
        known = "only `bench run` and `bench work` bring the commands of several nodes together"
        raise EnvironmentProblem(f"--nodes {count}: there are no other nodes here", known, "Use these commands.")
    make_folder(request.out)
    progress = make_progress(total=len(plan.runs) + len(plan.trials))
    with progress, preemptible() as check:
        for line in notes(plan):
            progress.say(line)
        check()
        attempts = make_attempts(plan, progress, check, verbose=verbose, nodes=nodes)
        prepare(plan, attempts)
        total = len(plan.runs) + len(plan.trials)
        count = count_workers(jobs, accelerator=request.accelerator, devices=request.devices, runs=total)
        yield from run_pool(plan, count, attempts) if count > 1 else work(plan, attempts, wait=wait)


def make_attempts(
    plan: Plan,
    progress: Progress,
    check: Callable[[], None],
    *,
    verbose: bool = False,
    pool: str = "",
    nodes: Nodes | None = None,
) -> Attempts:
    """Prepare this process for the runs of a plan; `pool` names the pool of which it is a worker."""
    claims = Claims(plan.runs[0].spec.options.runtime.claim_s, pool=pool)
    return Attempts(request=plan.request, progress=progress, check=check, verbose=verbose, claims=claims, nodes=nodes)


def prepare(plan: Plan, attempts: Attempts) -> None:
    """Look at the records that are there before anything is trained; with `--retry` those that failed are made again.

    Raises:
        EnvironmentProblem: one is of another version of the schema, so its folder must be left as it is.
    """
    there: dict[str, Record] = {}
    looked: set[str] = set()

    def look(run: PlannedRun) -> None:
        looked.add(run.run_id)
        folder = attempts.folder(run)
        found = existing(folder)
        if found and plan.request.retry and found.state in FINISHED and found.state != "done":
            record.write(structs.replace(found, state="cancelled", error=None), folder)
        elif found:
            there[run.run_id] = found

    for run in (*plan.trials, *plan.runs):
        look(run)
    for run in plan.runs:  # trials beyond the candidates, as far as they follow from the records that are there
        while beyond := [trial for trial in selection.open_trials(run, there) if trial.run_id not in looked]:
            for trial in beyond:
                look(trial)


def work(plan: Plan, attempts: Attempts, *, wait: bool = True) -> Generator[Record]:
    """Make every run of a plan that no other process has, and yield the records of all.

    Any number of processes may do this in one folder at the same time. At the end each waits for the others, and makes
    the runs of those that die; without `wait` it returns instead, unless runs are to follow from what others do now.
    """
    ended: dict[str, Record] = {}
    planned = {run.run_id for run in (*plan.trials, *plan.runs)}
    while ready := _ready(plan, ended):
        before = len(ended)
        for run in ready:
            attempts.check()
            if run.run_id not in planned:  # a trial beyond the candidates
                planned.add(run.run_id)
                attempts.progress.extend(run.run_id)
            if made := attempts.attempt(run, ended):
                ended[run.run_id] = made
                if not run.spec.holdout:
                    yield made
        if len(ended) == before:
            if not wait and not any(run.spec.holdout for run in ready):
                return
            time.sleep(POLL_S)


def _ready(plan: Plan, ended: selection.Tried) -> list[PlannedRun]:
    """What can be made now: open trials, and runs that have all of theirs."""
    ready: dict[str, PlannedRun] = {}
    for run in plan.runs:
        if run.run_id not in ended:
            for one in selection.open_trials(run, ended) or [run]:
                ready.setdefault(one.run_id, one)
    return [*ready.values()]


def make_folder(out: Path) -> None:
    """Create the folder of the records, and write into it once; nothing of that stays.

    Raises:
        EnvironmentProblem: it cannot be created or written.
    """
    verb = "created"
    try:
        out.mkdir(parents=True, exist_ok=True)
        verb = "written"
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise EnvironmentProblem(
            f"--out {out} cannot be {verb}", f"{error.filename or out}: {error.strerror}", "Name another folder."
        ) from error


__all__ = ["Preempted", "make_folder", "run_plan", "stopped"]
