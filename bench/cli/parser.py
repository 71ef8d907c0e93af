"""The argument parser: kebab-case flags, errors in three parts, examples at the end of every help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from bench.config.flags import ACCELERATORS, SOURCES, choice, count, course, jobs, listed, port, positive, seed
from bench.core.errors import UsageError, did_you_mean

__all__ = [
    "ACCELERATORS",
    "SOURCES",
    "Parser",
    "choice",
    "common",
    "count",
    "course",
    "jobs",
    "listed",
    "port",
    "positive",
    "seed",
]
"""With the readers of values, so that a verb finds here what it makes its flags of."""


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
