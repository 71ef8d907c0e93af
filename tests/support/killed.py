"""A command that a signal ends, or stops, at a step of its training, however slow the machine is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

PROGRAM = """
import os, sys
from bench.cli import main
from bench.harness.progress import Progress

def step(self, step, loss, lane=0):
    steps.append(step)
    if len(steps) == {at}:
        os.kill(os.getpid(), {number})

steps = []
Progress.step = step
sys.exit(main(sys.argv[1:]))
"""


def start(argv: Sequence[str], *, at: int, number: signal.Signals) -> subprocess.Popen[str]:
    """Start `bench` with `argv`; at its step `at`, counted over all its runs, it gets a signal."""
    command = [sys.executable, "-P", "-c", PROGRAM.format(at=at, number=int(number)), *argv]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_at_step(argv: Sequence[str], at: int) -> None:
    """Run `bench` with `argv` until it has made `at` training steps, counted over all its runs, and kill it there."""
    process = start(argv, at=at, number=signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


def stop_at_step(argv: Sequence[str], at: int) -> subprocess.Popen[str]:
    """Run `bench` with `argv` until it has made `at` training steps, and return it there, stopped by SIGSTOP."""
    process = start(argv, at=at, number=signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return process
