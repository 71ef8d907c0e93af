"""SIGTERM, and Slurm's SIGUSR1, as an exception: a scheduler wants this machine back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no USR1


class Preempted(BaseException):
    """A scheduler asked this process to stop; the same command goes on later."""


@contextmanager
def preemptible() -> Generator[Callable[[], None]]:
    """Raise `Preempted` when a scheduler's signal arrives; in the main thread alone, since others may set no handler.

    Yields a function that raises it again: Python drops what a handler raises while an object is being finalised.
    """
    arrived = False

    def handler(number: int, frame: object) -> None:
        nonlocal arrived
        arrived = True
        raise Preempted

    def check() -> None:
        if arrived:
            raise Preempted

    try:
        before = {number: signal.signal(number, handler) for number in SIGNALS}
    except ValueError:
        yield check
        return
    try:
        yield check
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
