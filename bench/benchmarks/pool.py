"""Runs per minute of a pool of workers against one, and how long a worker takes to begin a run.

    python -m bench.benchmarks.pool --jobs 1,2 --runs 16

The same runs are made by a pool of each size, in turns, in folders of their own. A worker begins its first run with
imports and reading; for the later ones everything is there. Timed is the way to the first step: of a worker's first run
from the start of its process, of a later one from the end of the run before.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.benchmarks import print_or_fail
from bench.cli.parser import count, listed
from bench.core.errors import BenchError
from bench.core.text import table
from bench.harness.planner import make_plan
from bench.harness.pool import run_pool
from bench.harness.progress import Progress
from bench.harness.request import make_request
from bench.harness.runner import make_attempts
from bench.harness.signals import preemptible


class Clock(Progress):
    """Notes how long each lane's runs take from their beginning to their first step.

    Attributes:
        first: seconds from the start of a worker to the first step of its first run.
        later: seconds from the beginning of any later run to its first step.
    """

    def __init__(self) -> None:
        super().__init__(total=0)
        self.first: list[float] = []
        self.later: list[float] = []
        self._since: dict[int, float] = {}
        self._seen: set[int] = set()
        self._start = time.monotonic()

    def say(self, line: str) -> None:
        sys.stderr.write(".")
        sys.stderr.flush()

    def begin(self, label: str, steps: int, folder: Path, lane: int = 0) -> None:
        self._since[lane] = time.monotonic() if lane in self._seen else self._start
        self._seen.add(lane)

    def step(self, step: int, loss: float, lane: int = 0) -> None:
        since = self._since.pop(lane, None)
        if since is not None:
            times = self.first if since == self._start else self.later
            times.append(time.monotonic() - since)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.pool", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--jobs", type=listed(count), default=(1, 2), metavar="N,N", help="pools (default: 1,2)")
    parser.add_argument("--runs", type=count, default=16, metavar="N", help="runs of each (default: 16)")
    parser.add_argument("--rounds", type=count, default=1, metavar="N", help="turns (default: 1)")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--task", default="glue/cola")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--max-steps", type=count, default=100, metavar="N")
    options = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in a pool of one worker a core
    return print_or_fail(lambda: _table(options))


def _table(options: argparse.Namespace) -> str:
    seconds: dict[int, list[float]] = {jobs: [] for jobs in options.jobs}
    clocks: dict[int, list[Clock]] = {jobs: [] for jobs in options.jobs}
    for _ in range(options.rounds):
        for jobs in options.jobs:
            clock, whole = _run(options, jobs)
            seconds[jobs].append(whole)
            clocks[jobs].append(clock)
    alone = median(seconds[options.jobs[0]])
    rows = [
        (
            str(jobs),
            f"{60 * options.runs / median(seconds[jobs]):.1f}",
            f"{alone / median(seconds[jobs]):.2f}",
            f"{first:.1f}",
            f"{later:.2f}",
            f"{later / first:.2f}",
        )
        for jobs in options.jobs
        for first, later in [_starts(clocks[jobs])]
    ]
    header = ("workers", "runs a minute", "× the first", "s to the first step", "of a later run", "ratio")
    return table(header, rows)


def _starts(clocks: Sequence[Clock]) -> tuple[float, float]:
    """The medians of the seconds to the first step, of first and of later runs."""
    first = [time for clock in clocks for time in clock.first]
    later = [time for clock in clocks for time in clock.later]
    return median(first), median(later)


def _run(options: argparse.Namespace, jobs: int) -> tuple[Clock, float]:
    """Make the runs by a pool of `jobs` workers; return what its clock saw, and the seconds of it all."""
    with tempfile.TemporaryDirectory() as folder, preemptible() as check:
        plan = make_plan(
            make_request(
                methods=options.method,
                tasks=options.task,
                backbones=options.backbone,
                seeds=range(options.runs),
                max_steps=options.max_steps,
                out=folder,
                accelerator="cpu",
            )
        )
        start, clock = time.monotonic(), Clock()
        records = [*run_pool(plan, jobs, make_attempts(plan, clock, check))]
        if any(made.state != "done" for made in records):
            raise BenchError(
                "a run failed", f"states: {', '.join(made.state for made in records)}", "See why: bench run."
            )
        return clock, time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
