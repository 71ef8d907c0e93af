"""What verbs print: JSON on stdout, errors in three parts on stderr."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.core.errors import BenchError, EnvironmentProblem
from bench.core.text import dump_json, printable, printable_lines, without_secrets

if TYPE_CHECKING:
    from bench.records.record import Record


def emit(value: object) -> None:
    """Print one JSON value on stdout."""
    print(without_secrets(dump_json(value, default=_plain)))


def report(error: BenchError, *, as_json: bool) -> None:
    """Print an error's three parts on stderr, and as an object on stdout where JSON was asked for."""
    known = textwrap.indent(error.known, "  ")
    lines = "\n".join(part for part in (f"error: {error.what}", known, error.todo) if part)
    print(printable_lines(lines), file=sys.stderr)
    if as_json:
        emit(error_json(error))


def error_json(error: BenchError) -> dict[str, dict[str, str]]:
    return {"error": {"what": error.what, "known": error.known, "todo": error.todo}}


def warn(problem: BenchError) -> None:
    """Print a problem that ends nothing, in one line on stderr."""
    print(f"warning: {printable(problem.line())}", file=sys.stderr)


def read_records(folder: Path) -> tuple[list[Record], list[BenchError]]:
    """Read the records of a folder, which must hold some, and warn of those that cannot be read."""
    from bench.records.record import load_all

    records, problems = load_all(folder)
    if not records and not problems:
        raise EnvironmentProblem(
            f"no records in {folder}",
            "the folder is empty" if folder.is_dir() else "there is no such folder",
            "Run something first (bench run --method deeplora --task glue), or name the folder: --runs DIR.",
        )
    for problem in problems:
        warn(problem)
    return records, problems


def _plain(value: object) -> object:
    if isinstance(value, frozenset | set):
        return sorted(str(item) for item in cast(Iterable[object], value))
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
