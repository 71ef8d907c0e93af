"""The argument parser: kebab-case flags, errors in three parts, examples at the end of every help."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from bench.core.errors import UsageError, did_you_mean

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


class Parser(argparse.ArgumentParser):
    """argparse with this suite's errors; no abbreviated flags, so that a new flag breaks no script."""

    def __init__(self, *, examples: Sequence[str] = (), **options: Any) -> None:
        epilog = "\n".join(["examples:", *(f"  {example}" for example in examples)])
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(epilog=epilog, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found; a converter's message may bring all three parts, one a line."""
        what, *more = message.removeprefix("argument ").split("\n")
        known = more[0] if more else " ".join(self.format_usage().split())
        raise UsageError(what, known, more[1] if len(more) > 1 else f"`{self.prog} --help` explains every flag.")

    def unknown(self, argv: Sequence[str]) -> NoReturn:
        """Raise for arguments that no flag takes, with the nearest flag."""
        word = argv[0]
        flags = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", self.format_help().partition("examples:")[0])))
        if word.startswith("-"):
            hint = did_you_mean(word.partition("=")[0], flags)
            todo = f"{hint} `{self.prog} --help` explains them.".strip()
            raise UsageError(f"unknown flag '{word}'", f"flags of {self.prog}: {', '.join(flags)}", todo)
        todo = f"Lists are written with commas and without spaces. `{self.prog} --help` explains every flag."
        raise UsageError(f"'{word}' belongs to no flag", " ".join(self.format_usage().split()), todo)


def common() -> argparse.ArgumentParser:
    """Flags of every verb."""
    parent = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parent.add_argument("--json", action="store_true", help="print one JSON value on stdout")
    parent.add_argument("-v", "--verbose", action="store_true", help="more messages, and tracebacks, on stderr")
    return parent


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


def _wrong(what: str, known: str, todo: str) -> argparse.ArgumentTypeError:
    """argparse puts the flag's name before it and gives it to `Parser.error`."""
    return argparse.ArgumentTypeError(f"{what}\n{known}\n{todo}")


def _whole(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[+-]?\d{1,19}", text) or not low <= int(text) <= high:
        limit = f"of at least {low}" if high == sys.maxsize else f"from {low} to {high}"
        raise _wrong(f"'{text}' is not a whole number {limit}", "such as 3", f"Give a whole number {limit}.")
    return int(text)


count = partial(_whole, low=1, high=sys.maxsize)
seed = partial(_whole, low=0, high=2**32 - 1)  # numpy takes no larger one
port = partial(_whole, low=0, high=65535)  # 0: one that is free
