"""Errors as a command prints them."""

from __future__ import annotations

from typing import Any


def three_parts(outcome: Any, *, skip: int = 0) -> tuple[str, str, str]:
    """What, what is known and what to do of the error that ended a command, after `skip` lines on runs."""
    first, *known, todo = outcome.err.strip().splitlines()[skip:]
    assert first.startswith("error: ")
    assert known and all(line.startswith("  ") for line in known)
    return first, "\n".join(known), todo
