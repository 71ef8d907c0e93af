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
{first}

def step(self, step, loss, lane=0):
    steps.append(step)
    if len(steps) == {at}:
        os.kill(os.getpid(), {number})

steps = []
Progress.step = step
sys.exit(main(sys.argv[1:]))
"""


def start(argv: Sequence[str], *, at: int, number: signal.Signals, first: str = "") -> subprocess.Popen[str]:
    """Run the lines `first`, then `bench` with `argv`, which gets a signal at step `at`, counted over all its runs."""
    command = [sys.executable, "-P", "-c", PROGRAM.format(at=at, number=int(number), first=first), *argv]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_at_step(argv: Sequence[str], at: int, *, first: str = "") -> None:
    """Run `bench` with `argv` until it has made `at` training steps, counted over all its runs, and kill it there.

    The lines `first` are run before the command: they set what would otherwise depend on the machine's speed.
    """
    process = start(argv, at=at, number=signal.SIGKILL, first=first)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


def stop_at_step(argv: Sequence[str], at: int) -> subprocess.Popen[str]:
    """Run `bench` with `argv` until it has made `at` training steps, and return it there, stopped by SIGSTOP."""
    process = start(argv, at=at, number=signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return process
