"""Records: one JSON file per run, the truth that tables, mirrors and resuming read.

`<out>/<run_id>/record.json` is described by `record.schema.json` and, in words, by docs/record.md.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import re
from collections.abc import Generator, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.core.files import write_atomic

SCHEMA = 1
"""Version of the schema that this code writes and reads."""
FILE = "record.json"
Record = dict[str, Any]
State = Literal["running", "done", "failed", "oom", "diverged", "cancelled", "preempted"]

_ID = re.compile(r"[0-9a-f]{16}")
_LARGEST = 2**63
"""Integers at or beyond it are no count of anything, and other JSON readers do not hold them."""


def folder(out: Path, run_id: str) -> Path:
    """The folder of one run.

    Raises:
        UsageError: `run_id` is not 16 hex digits; nothing else may become part of a path.
    """
    if not _ID.fullmatch(run_id):
        raise UsageError(
            f"{run_id!r} is not a run id", "a run id is 16 digits of 0-9a-f", "`bench list runs` shows them."
        )
    return out / run_id


def validate(record: Mapping[str, Any], path: Path, *, finite: bool = False) -> None:
    """Check a record against the schema.

    Args:
        record: what was read, or will be written.
        path: its file, for messages.
        finite: it is known already that all numbers are finite.

    Raises:
        EnvironmentProblem: names `path`, the field and what is wrong with it.
    """
    version = record.get("schema") if isinstance(record, dict) else None
    if isinstance(version, int) and version != SCHEMA:
        raise EnvironmentProblem(
            f"{path}: schema version {version}",
            f"this version of lowrank-bench reads version {SCHEMA}",
            "Read it with the version that wrote it, or run its command again in another folder.",
        )
    for field in () if finite else _not_finite(record):
        raise _invalid(path, field, "not a finite number")
    if _quick().is_valid(record):
        return
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = cast(Any, best_match(Draft202012Validator(schema()).iter_errors(record)))
    if error is not None:
        raise _invalid(path, error.json_path, error.message)


def write(record: Record, directory: Path) -> None:
    """Write `<directory>/record.json` at once: a reader, or a crash, sees the old record or the new one, never half.

    Args:
        record: the whole record.
        directory: the run's own folder, `folder(out, run_id)`; made where it does not exist.

    Raises:
        EnvironmentProblem: the record does not follow the schema, or is not of this folder; nothing is written.
    """
    path = directory / FILE
    _check(json.loads(json.dumps(record)), path)  # as it will be read: tuples are lists
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_atomic(path, text.encode(), sync=True)


def read(path: Path) -> Record:
    """The record in a file, checked.

    Raises:
        EnvironmentProblem: it cannot be read, is not JSON, or does not follow the schema; the error names the file.
    """
    try:
        record, finite = _parse(path.read_text(encoding="utf-8"))
        _check(record, path, finite=finite)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise EnvironmentProblem(f"{path}: cannot be read as a record", reason, _todo(path)) from error
    return record


def load_all(out: Path) -> tuple[list[Record], list[BenchError]]:
    """Every record of a folder in the order of run ids, and a problem, naming its file, for each that is none."""
    records: list[Record] = []
    problems: list[BenchError] = []
    with _uncollected():
        for path in sorted(out.glob(f"*/{FILE}")):
            try:
                records.append(read(path))
            except BenchError as problem:
                problems.append(problem)
    return records, problems


@contextlib.contextmanager
def _uncollected() -> Generator[None]:
    """No garbage collection meanwhile: of thousands of records it would look through all of them again and again, for a
    third of the time, and find nothing, since JSON has no cycles.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def find(out: Path, prefix: str) -> Record:
    """The record whose run id begins with `prefix`.

    Raises:
        UsageError: no run or several begin so.
        EnvironmentProblem: the one that does cannot be read.
    """
    todo = f"`bench list runs --runs {out}` shows the runs that are there."
    if not re.fullmatch(r"[0-9a-f]{1,16}", prefix):
        raise UsageError(f"{prefix!r} is not the beginning of a run id", "a run id is 16 digits of 0-9a-f", todo)
    ids = sorted(p.parent.name for p in out.glob(f"{prefix}*/{FILE}") if _ID.fullmatch(p.parent.name))
    if len(ids) != 1:
        known = f"it could be {', '.join(ids[:5])}" + (" …" if len(ids) > 5 else "") if ids else f"looked in {out}"
        many = f"{len(ids)} runs in {out} begin" if ids else f"no run in {out} begins"
        raise UsageError(f"{many} with '{prefix}'", known, todo)
    return read(folder(out, ids[0]) / FILE)


def state_of(out: Path, run_id: str) -> State | None:
    """State of a run, or None where it has no record.

    Raises:
        UsageError: `run_id` is none.
        EnvironmentProblem: the record is there but cannot be read.
    """
    path = folder(out, run_id) / FILE
    return read(path)["state"] if path.exists() else None


def schema() -> dict[str, Any]:
    """The JSON schema of a record (draft 2020-12)."""
    from importlib import resources  # here and below, not at module top: most commands check no record

    return json.loads(resources.files("bench.records").joinpath("record.schema.json").read_text(encoding="utf-8"))


@cache
def _quick() -> Any:
    """Says whether, not why: 250 times as fast, and nearly every record of a folder of thousands is valid."""
    from jsonschema_rs import validator_for

    return cast(Any, validator_for(schema()))


def _check(record: Record, path: Path, *, finite: bool = False) -> None:
    """Schema and folder: a copied or renamed folder would otherwise count one run twice."""
    validate(record, path, finite=finite)
    if path.parent.name != record["run_id"]:
        raise _invalid(path, "$.run_id", f"{record['run_id']}, but the folder is named {path.parent.name!r}")


def _parse(text: str) -> tuple[Any, bool]:
    """What JSON says, and whether all numbers are finite and below 64 bits: it costs little while they are read."""
    odd: list[str] = []

    def real(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            odd.append(digits)
        return value

    def whole(digits: str) -> int:
        value = int(digits)
        if abs(value) >= _LARGEST:
            odd.append(digits)
        return value

    return json.loads(text, parse_float=real, parse_int=whole, parse_constant=real), not odd


def _not_finite(value: Any, field: str = "$") -> Iterator[str]:
    """Fields that hold NaN, an infinity or an integer beyond 64 bits: JSON schema lets them pass as numbers."""
    if isinstance(value, dict):
        for key, item in cast(dict[str, Any], value).items():
            yield from _not_finite(item, f"{field}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[Any], value)):
            yield from _not_finite(item, f"{field}[{index}]")
    elif (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) >= _LARGEST):
        yield field


def _invalid(path: Path, field: str, reason: str) -> EnvironmentProblem:
    reason = reason if len(reason) <= 200 else reason[:197] + "…"
    return EnvironmentProblem(
        f"{path}: not a valid record", f"{field.removeprefix('$.').replace('$', 'record')}: {reason}", _todo(path)
    )


def _todo(path: Path) -> str:
    return f"Remove {path.parent} and run the command again, or put the record back from a copy."
