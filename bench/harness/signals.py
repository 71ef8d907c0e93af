"""Signals of a scheduler that wants this machine back, and of a terminal that closes, as an exception."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Slurm sends USR1 or USR2 a while before the end of an allocation, if asked to; submitit asks for USR2."""
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has SIGTERM alone


class Preempted(BaseException):
    """A scheduler asked this process to stop; the same command goes on later."""


class _Handler:
    """Raises `Preempted` where the first signal arrives, and again on `check`: Python drops what a handler raises while
    an object is being finalised. Schedulers send several, and a later one must not stop what the first one began.
    """

    arrived = False

    def __call__(self, number: int, frame: object) -> None:
        if not self.arrived:
            self.arrived = True
            raise Preempted

    def check(self) -> None:
        if self.arrived:
            raise Preempted


@contextmanager
def preemptible() -> Generator[Callable[[], None]]:
    """Raise `Preempted` when a scheduler's signal arrives; in the main thread alone, since others may set no handler.

    Yields a function that raises it again. Inside another `preemptible` it is that one's, and nothing else changes.
    """
    current = signal.getsignal(signal.SIGTERM)
    if isinstance(current, _Handler):
        yield current.check
        return
    handler = _Handler()
    try:
        before = {number: signal.signal(number, handler) for number in SIGNALS if not _ignored(number)}
    except ValueError:
        yield handler.check
        return
    try:
        yield handler.check
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _ignored(number: int) -> bool:
    """Whether a process is to outlive its terminal, as after `nohup`."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN
