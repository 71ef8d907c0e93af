"""A command that `kill -9` ends at a step of its training, however slow the machine is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

PROGRAM = """
import os, signal, sys
from bench.cli import main
from bench.harness.progress import Progress

def step(self, step, loss):
    steps.append(step)
    if len(steps) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

steps = []
Progress.step = step
main(sys.argv[1:])
"""


def kill_at_step(argv: Sequence[str], at: int) -> None:
    """Run `bench` with `argv` until it has made `at` training steps, counted over all its runs, and kill it there."""
    command = [sys.executable, "-P", "-c", PROGRAM.format(at=at), *argv]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
