"""From a plan to an array in the queue: what is done is skipped, and an array that is there is not doubled."""

from __future__ import annotations

from collections.abc import Callable

from bench.harness.attempt import FINISHED, existing
from bench.harness.plan_text import notes
from bench.harness.planner import Plan
from bench.harness.progress import make_progress
from bench.harness.runner import make_attempts, make_folder, prepare
from bench.harness.signals import preemptible
from bench.launchers import queue
from bench.launchers.arrays import Array
from bench.launchers.options import SlurmConfig
from bench.launchers.submit import submit, submitted, wait_for
from bench.records.schema import Record


def launch(plan: Plan, config: SlurmConfig, *, wait: bool, show: Callable[[Array], None]) -> list[Record] | None:
    """Submit an array of workers for the runs of a plan that are not done, unless there is one.

    Args:
        wait: return when it has left the queue.
        show: takes the array that will make the runs.

    Returns:
        The records of the runs that have ended, if there was nothing to do or it was waited for; else None.

    Raises:
        EnvironmentProblem: Slurm refuses the array, or the folder of records cannot be written.
        KeyboardInterrupt, Preempted: this command is to stop; the array goes on.
    """
    make_folder(plan.request.out)
    ended: dict[str, Record] = {}
    progress = make_progress(total=len(plan.runs))
    with progress, preemptible() as check:
        attempts = make_attempts(plan, progress, check)

        def look(before: str = "") -> None:
            check()
            for run in plan.runs:
                found = None if run.run_id in ended else existing(attempts.folder(run))
                if found and found.state in FINISHED:
                    ended[run.run_id] = found
                    progress.finished(found, before=before)

        for line in notes(plan):
            progress.say(line)
        prepare(plan, attempts)
        look("done before")
        if len(ended) == len(plan.runs):
            return [*ended.values()]
        if array := submitted(plan):
            states = queue.in_words(queue.waiting({array.job: array.name}).get(array.job, {}))
            progress.say(f"job {array.job} is still in the queue for this plan ({states}): no second array is added")
        else:
            trials = [trial for trial in plan.trials if not _finished(existing(attempts.folder(trial)))]
            runs = len(plan.runs) - len(ended) + len(trials)
            array = submit(plan, config, runs=runs, say=progress.say)
        show(array)
        if not wait:
            return None
        wait_for(array, look, progress.say)
        return [*ended.values()]


def _finished(found: Record | None) -> bool:
    return found is not None and found.state in FINISHED
