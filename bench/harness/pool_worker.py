"""A worker of a pool, `python -m bench.harness.pool_worker PLAN POOL PARENT`: works on a plan until nothing is left.

What it has to say it writes on standard output, a JSON list a line: the name of a method of `Progress`, and arguments.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import IO

from bench.core.errors import INTERRUPTED, OK, PREEMPTED, BenchError
from bench.harness.progress import Progress
from bench.harness.signals import Preempted, preemptible
from bench.harness.worker import end_with_parent
from bench.records.schema import Record

STEP_S = 0.2
"""Least time between two messages about steps."""


class Reports(Progress):
    """Progress as messages for the pool."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(total=0)
        self.stream, self._stepped = stream, 0.0

    def send(self, kind: str, *values: object) -> None:
        self.stream.write(json.dumps([kind, *values]) + "\n")
        self.stream.flush()

    def say(self, line: str) -> None:
        self.send("say", line)

    def extend(self, run_id: str) -> None:
        self.send("extend", run_id)

    def begin(self, label: str, steps: int, folder: Path, lane: int = 0) -> None:
        self.send("begin", label, steps, str(folder))

    def step(self, step: int, loss: float, lane: int = 0) -> None:
        if time.monotonic() - self._stepped >= STEP_S:
            self._stepped = time.monotonic()
            self.send("step", step, loss)

    def warn(self, task: str, text: str) -> None:
        self.send("warn", task, text)

    def finished(self, record: Record, *, before: str = "") -> None:
        self.send("finished", record.run_id, bool(record.spec.holdout), before)


def main(file: Path, pool: str) -> int:
    from bench.harness import failures, plan_file  # these import torch, and take seconds
    from bench.harness.planner import make_plan
    from bench.harness.runner import make_attempts, work

    reports = Reports(_own_output())
    try:
        with preemptible() as check:
            plan = make_plan(plan_file.read(file))
            for _ in work(plan, make_attempts(plan, reports, check, pool=pool)):
                pass
    except KeyboardInterrupt:
        return INTERRUPTED
    except Preempted:
        return PREEMPTED
    except (BenchError, OSError) as problem:
        known = failures.of_machine(problem, Path()) or problem
        if not isinstance(known, BenchError):
            raise
        reports.send("error", known.exit_code, known.what, known.known, known.todo)
        return known.exit_code
    return OK


def _own_output() -> IO[str]:
    """Standard output for messages alone: what anything else prints there goes to standard error."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return messages


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
