"""`bench run --launcher slurm`: an array of workers, each `bench work` on the same plan file.

submitit writes the job's script and submits it. The script starts a command, and no pickled function as submitit's own
jobs do: they would execute what lies in a shared folder, and leave the process within the handler of USR2, before the
run has recorded that it was pre-empted.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import PREEMPTED, EnvironmentProblem
from bench.core.files import write_atomic
from bench.harness import plan_file
from bench.launchers import arrays, queue
from bench.launchers.arrays import Array
from bench.launchers.options import SlurmConfig
from bench.records import job_log

if TYPE_CHECKING:
    from bench.harness.planner import Plan

POLL_S = 5.0
"""How often `--wait` looks into the queue."""
LOGS = "%A_%a_0_log.out"
"""Name of a worker's log, as submitit gives it; %A is the array's id, %a the worker's number, 0 its first node."""
SETUP = (
    f'export {job_log.VARIABLE}={{folder}}/"$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID"_0_log.out',
    "trap : HUP USR1 USR2  # they are for the worker; this shell waits for it",
    "trap 'ended=1' TERM",
)
REQUEUE = (
    "code=$?",
    "# USR1 and USR2 come before the time limit. After TERM Slurm itself queues again what it has pre-empted, and what",
    "# the user has cancelled must not come back.",
    f'if [ "$code" = {PREEMPTED} ] && [ -z "$ended" ]; then',
    '  scontrol requeue "$SLURM_JOB_ID" || echo "not queued again: the same bench command goes on"',
    "fi",
    'exit "$code"',
)


def name_of(plan: Plan) -> tuple[str, str]:
    """Return the text of a plan's file, and a name that stands for it."""
    text = plan_file.write(replace(plan.request, retry=False, out=plan.request.out.absolute()))
    return text, f"bench-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def check_launcher() -> None:
    """Look for what submitting needs, before anything is planned.

    Raises:
        EnvironmentProblem: there is no Slurm here, or no submitit.
    """
    for program in ("sbatch", "srun"):
        if not shutil.which(program):
            raise queue.missing(program)
    try:
        import submitit  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        todo = "Install it: pip install 'lowrank-bench[slurm]'."
        raise EnvironmentProblem("--launcher slurm needs submitit", str(error), todo) from error


def submitted(plan: Plan) -> Array | None:
    """Return the array of this very plan that is still in the queue; None if there is none, or if it is ending."""
    _, name = name_of(plan)
    known = {array.job: array for array in arrays.noted(plan.request.out) if array.name == name}
    there = queue.waiting(dict.fromkeys(known, name))
    return next((known[job] for job, states in there.items() if states.keys() != {"completing"}), None)


def submit(plan: Plan, config: SlurmConfig, *, runs: int, say: Callable[[str], None]) -> Array:
    """Submit an array of workers for a plan of which so many runs are not done.

    Args:
        say: takes a line about what differs from what was asked.

    Raises:
        EnvironmentProblem: Slurm refuses it; what is known is its own text.
    """
    workers, most = min(runs, config.workers), queue.most_tasks()
    if most is not None and workers > max(1, most):
        say(f"this site's arrays have at most {most} tasks (MaxArraySize): {most} workers instead of {workers}")
        workers = max(1, most)
    folder = (plan.request.out / arrays.FOLDER).absolute()
    text, name = name_of(plan)
    file = folder / f"plan-{name.removeprefix('bench-')}.yaml"
    write_atomic(file, text.encode())
    nodes = plan.runs[0].spec.options.runtime.nodes
    job = _sbatch(_worker(file, plan.request.out.absolute()), folder, name, workers, config, nodes=nodes)
    array = Array(job=job, name=name, workers=workers, logs=str(plan.request.out / arrays.FOLDER / _logs(job)))
    arrays.note(array, plan.request.out)
    return array


def wait_for(array: Array, look: Callable[[], object], say: Callable[[str], None]) -> None:
    """Wait until an array has left the queue, and `look` at the records every few seconds.

    A controller that does not answer is waited for too, which one line says.
    """
    silent = False
    while True:
        try:
            there = queue.waiting({array.job: array.name})
        except EnvironmentProblem as problem:
            if not silent:
                say(f"{problem.line()} It is asked again every {POLL_S:g} s.")
            silent = True
        else:
            silent = False
            if not there:
                break
        look()
        time.sleep(POLL_S)
    look()


def _logs(job: str) -> str:
    return LOGS.replace("%A", job).replace("%a", "*")


def _worker(file: Path, out: Path) -> list[str]:
    # `-m` alone would look into the current folder first, where a folder `tasks` could hide ours
    return [sys.executable, "-P", "-m", "bench", "work", "--plan", str(file), "--out", str(out)]


def _sbatch(command: Iterable[str], folder: Path, name: str, workers: int, config: SlurmConfig, *, nodes: int) -> str:
    """Submit a command as an array, each task of which starts it on so many nodes; return the job's id."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    class Executor(SlurmExecutor):
        def submit_workers(self, command: str) -> str:
            self.parameters["map_count"] = workers
            return self._submit_command(command).job_id

    asked = config.to_json()
    kept = ("partition", "time", "gres", "constraint", "cpus_per_task", "mem", "account", "qos")
    executor = Executor(folder)
    executor.update_parameters(
        **{key: asked[key] for key in kept},
        job_name=name,
        nodes=nodes,
        ntasks_per_node=1,
        wckey=None,
        array_parallelism=config.array_parallelism or workers,
        signal_delay_s=config.signal_s,
        stderr_to_stdout=True,
        setup=[*(line.replace("{folder}", shlex.quote(str(folder))) for line in SETUP), *filter(None, [config.setup])],
        teardown=[*REQUEUE],
        srun_args=["--open-mode=append", *([f"--cpus-per-task={n}"] if (n := config.cpus_per_task) else [])],
        additional_parameters={"requeue": True},
    )
    try:
        return executor.submit_workers(shlex.join(command))
    except (FailedJobError, FailedSubmissionError) as error:
        known = "\n".join(line for line in str(error).splitlines() if line.strip())
        todo = "Ask for what the site has (`sinfo`), with --set slurm.…; `bench show slurm` lists the options."
        raise EnvironmentProblem("Slurm refuses the array", known, todo) from error
    finally:
        for script in folder.glob(".submission_file_*"):  # Slurm has its own copy
            script.unlink(missing_ok=True)
