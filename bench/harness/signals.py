"""SIGTERM, and Slurm's SIGUSR1, as an exception: a scheduler wants this machine back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no USR1


class Preempted(BaseException):
    """A scheduler asked this process to stop; the same command goes on later."""


class _Handler:
    """Raises `Preempted` where a signal arrives, and again on `check`: Python drops what a handler raises while an
    object is being finalised.
    """

    arrived = False

    def __call__(self, number: int, frame: object) -> None:
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
        before = {number: signal.signal(number, handler) for number in SIGNALS}
    except ValueError:
        yield handler.check
        return
    try:
        yield handler.check
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
