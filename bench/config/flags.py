"""What a text stands for as the value of a flag, behind the flag or in a plan file.

Each reader raises `ArgumentTypeError`, whose message has the three parts of an error, one a line.
"""

from __future__ import annotations

import math
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import partial

from bench.core.errors import did_you_mean

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
SOURCES = ("auto", "dir", "hub", "embedded")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def choice(*values: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in values:
            hint = did_you_mean(text, values) or "Choose one of them."
            raise _wrong(f"unknown value '{text}'", f"allowed: {', '.join(values)}", hint)
        return text

    return convert


def listed(item: Callable[[str], object] = str) -> Callable[[str], tuple[object, ...]]:
    """A list with commas, each element converted by `item`."""

    def convert(text: str) -> tuple[object, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise _wrong(f"'{text}' has an empty element", "a list is written a,b,c", "Take the extra comma out.")
        return tuple(item(part) for part in parts)

    return convert


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise _wrong(f"'{text}' is not a positive number", "such as 0.001, 1e-3 or 2", "Give a finite number above 0.")
    return number


def boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise _wrong(f"'{text}' is neither true nor false", f"allowed: {', '.join(_BOOLEANS)}", "Write true or false.")
    return _BOOLEANS[text.lower()]


def course(text: str) -> int | str:
    """A number of steps, or the text as it is, which `make_request` checks."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,19}", text) else text


def _whole(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[+-]?\d{1,19}", text) or not low <= int(text) <= high:
        limit = f"of at least {low}" if high == sys.maxsize else f"from {low} to {high}"
        raise _wrong(f"'{text}' is not a whole number {limit}", "such as 3", f"Give a whole number {limit}.")
    return int(text)


count = partial(_whole, low=1, high=sys.maxsize)
zero_or_more = partial(_whole, low=0, high=sys.maxsize)
seed = partial(_whole, low=0, high=2**32 - 1)  # numpy takes no larger one
port = partial(_whole, low=0, high=65535)  # 0: one that is free


def jobs(text: str) -> int | str:
    """A number of processes, or auto."""
    if text == "auto":
        return text
    try:
        return count(text)
    except ArgumentTypeError:
        what = f"'{text}' is neither a whole number of at least 1 nor auto"
        known = "auto is one for each GPU, or for each core"
        raise _wrong(what, known, "Give a number such as 2, or auto.") from None


def _wrong(what: str, known: str, todo: str) -> ArgumentTypeError:
    return ArgumentTypeError(f"{what}\n{known}\n{todo}")
