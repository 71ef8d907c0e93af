"""Numbers as people read them: scores and parameter counts."""

from __future__ import annotations

DECIMALS = 3
"""Decimals of a score."""
SMALL = 0.01
"""Errors below it are shown with three significant digits instead."""


def format_score(value: float, higher_is_better: bool | None = True) -> str:
    """Format a score with three decimals, or a small error with three digits: `0.813`, `5.53e-05`."""
    small = higher_is_better is False and 0 < abs(value) < SMALL
    return f"{value:.3g}" if small else f"{value:z.{DECIMALS}f}"


def format_count(parameters: float) -> str:
    """Format a number of parameters: `22.7 M`, `0.07 M`, `1.2 k`, `770`."""
    if parameters >= 9_995:
        return f"{parameters / 1e6:.{1 if parameters >= 9.995e6 else 2}f} M"
    return f"{parameters / 1e3:.1f} k" if parameters >= 1_000 else f"{parameters:.0f}"


def format_trained(parameters: float, share: float) -> str:
    """Format how many parameters train, and their share of all: `0.07 M (0.3 %)`."""
    percent = 100 * share
    digits = f"{percent:.0f}" if percent >= 99.95 else f"{percent:.1f}" if percent >= 0.1 else f"{percent:.2g}"
    return f"{format_count(parameters)} ({digits} %)"
