"""How the command line speaks: tables and JSON on stdout, errors in three parts on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from bench.core.errors import BenchError


def emit(value: Any) -> None:
    """Print one JSON value on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain))


def report(error: BenchError, *, as_json: bool) -> None:
    """An error's three parts on stderr, and as an object on stdout where JSON was asked for."""
    known = textwrap.indent(error.known, "  ")
    print("\n".join(part for part in (f"error: {error.what}", known, error.todo) if part), file=sys.stderr)
    if as_json:
        emit({"error": {"what": error.what, "known": error.known, "todo": error.todo}})


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Aligned columns; on a terminal the last one is wrapped to its width, elsewhere a row stays one line."""
    lines = [[*map(str, row)] for row in (header, *rows)]
    widths = [max(_width(row[i]) for row in lines) for i in range(len(header) - 1)]
    left = len(indent) + sum(widths) + 2 * len(widths)
    room = max(30, shutil.get_terminal_size().columns - left) if sys.stdout.isatty() else sys.maxsize
    out: list[str] = []
    for *cells, last in lines:
        start = "".join(cell + " " * (width - _width(cell) + 2) for cell, width in zip(cells, widths, strict=True))
        first, *rest = textwrap.wrap(last, room) or [""]
        out += [f"{indent}{start}{first}".rstrip(), *(" " * left + more for more in rest)]
    return "\n".join(out)


def _width(text: str) -> int:
    """Columns on a terminal: combining marks (W̃) take none."""
    return sum(not unicodedata.combining(c) for c in text)


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
