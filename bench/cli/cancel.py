"""`bench cancel`: takes a folder's arrays out of Slurm's queue, and stops its workers on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.output import emit
from bench.cli.parser import Parser, common
from bench.core.errors import OK, EnvironmentProblem
from bench.core.text import printable
from bench.launchers import arrays, here, queue

EXAMPLES = ("bench cancel", "bench cancel --runs /shared/runs")


def parser() -> Parser:
    parser = Parser(
        prog="bench cancel",
        description="Take the arrays of --launcher slurm out of the queue, and stop what trains on this machine. Runs\n"
        "that are stopped are recorded as preempted; the same bench run command goes on with them.",
        parents=[common()],
        examples=EXAMPLES,
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return parser


def handle(options: argparse.Namespace) -> int:
    out: Path = options.runs.expanduser()
    waiting: queue.Waiting = {}
    problem: EnvironmentProblem | None = None
    try:
        waiting = queue.waiting({array.job: array.name for array in arrays.noted(out)})
        if waiting:
            queue.cancel(waiting)
    except EnvironmentProblem as error:  # what trains here is stopped all the same
        problem = error
    stopped = here.stop(out, jobs=waiting.keys())
    if stopped.here or not problem:
        _show(out, waiting, stopped, as_json=options.json)
    if problem:
        raise problem
    return OK


def _show(out: Path, waiting: queue.Waiting, stopped: here.Stopped, *, as_json: bool) -> None:
    if as_json:
        processes = [{"pid": pid, "run_id": run_id} for pid, run_id in stopped.here.items()]
        emit({"arrays": waiting, "processes": processes, "elsewhere": stopped.elsewhere})
        return
    lines = [f"cancelled job {job}: {queue.in_words(states)}" for job, states in waiting.items()]
    lines += [f"sent SIGTERM to process {pid}, which trains {run_id}" for pid, run_id in stopped.here.items()]
    lines = lines or [f"nothing to cancel in {out}: no array in the queue, and no process of this machine trains a run"]
    if stopped.elsewhere and not waiting:
        lines.append(f"left alone: {stopped.elsewhere} claimed from other machines; run the same command there")
    print("\n".join(map(printable, lines)))
