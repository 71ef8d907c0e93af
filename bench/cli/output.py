"""What verbs print: JSON on stdout, errors in three parts on stderr."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from bench.core.errors import BenchError


def emit(value: Any) -> None:
    """Print one JSON value on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain))


def report(error: BenchError, *, as_json: bool) -> None:
    """Print an error's three parts on stderr, and as an object on stdout where JSON was asked for."""
    known = textwrap.indent(error.known, "  ")
    print("\n".join(part for part in (f"error: {error.what}", known, error.todo) if part), file=sys.stderr)
    if as_json:
        emit({"error": {"what": error.what, "known": error.known, "todo": error.todo}})


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(str(item) for item in cast(Iterable[object], value))
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
