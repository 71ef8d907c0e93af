"""Records: one JSON file per run, the truth that tables, mirrors and resuming read.

`<out>/<run_id>/record.json` is described by `bench.records.schema` and, in words, by docs/record.md.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from msgspec import structs

from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.core.files import regular, write_atomic
from bench.core.text import without_secrets
from bench.records.consistency import contradictions
from bench.records.fields import SCHEMA, State, unusable
from bench.records.schema import DoneRecord, Record, is_done

T = TypeVar("T")

__all__ = ["ADAPTER", "FILE", "BrokenRecord", "DoneRecord", "Record", "State"]
__all__ += ["find", "folder", "has_digest", "is_done", "is_run_id", "iterate", "load_all", "locate", "parse", "read"]
__all__ += ["separate", "stamps", "to_json", "validate", "write"]
FILE = "record.json"
ADAPTER = "adapter.safetensors"
"""The trained weights beside it, where the run kept them."""
TRIALS = "selection"
"""Folder in that of the runs for the trials of `--select`, which tables do not read."""
ERROR_LOG = "error.log"
"""File beside a record with the traceback of an unexpected error."""
MOST_BYTES = 16 * 2**20
"""Size of the largest file that is read as a record; real ones have some ten kilobytes."""

Stamp = tuple[int, int, int, int]
"""Time of change, time of modification (ns), size and inode of a file. A file that changes gets another one, unless it
is changed twice within a tick of the file system's clock."""

_ID = re.compile(r"[0-9a-f]{16}")
_DECODER = msgspec.json.Decoder(Record)


class BrokenRecord(EnvironmentProblem):
    """A file is no record of any version: not JSON, a field too many, of another folder."""


def is_run_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None


def folder(out: Path, run_id: str) -> Path:
    """Raises UsageError if `run_id` is not 16 hex digits; nothing else may become part of a path."""
    if not is_run_id(run_id):
        raise UsageError(
            f"{run_id!r} is not a run id", "a run id is 16 digits of 0-9a-f", "`bench list runs` shows them."
        )
    return out / run_id


def validate(value: object, path: Path) -> Record:
    """The record that the JSON values of a file describe.

    Raises:
        BrokenRecord: names `path`, the field and what is wrong with it.
        EnvironmentProblem: it is of another version of the schema.
    """
    version = _schema_version(value)
    if isinstance(version, int) and version != SCHEMA:
        raise EnvironmentProblem(
            f"{path}: schema version {version}",
            f"this version of lowrank-bench reads version {SCHEMA}",
            "Read it with the version that wrote it, or run its command again in another folder.",
        )
    for reason in unusable(value):
        raise _invalid(path, reason)
    try:
        record = msgspec.convert(value, Record)
    except msgspec.ValidationError as error:
        raise _invalid(path, _with_keys(str(error), value)) from None
    _check_content(record, path)
    return record


def write(record: Record, directory: Path) -> None:
    """Write `record.json`, without secrets, in the run's own folder at once: a reader, or a crash, sees the old one or
    the new one.

    Raises:
        EnvironmentProblem: a field has a wrong type or value, or the record is not of this folder; nothing is written.
    """
    path, value = directory / FILE, to_json(record)
    _check_folder(validate(value, path), path)  # structures check types only where they are read
    content = (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    if len(content) > MOST_BYTES:
        raise _invalid(path, f"{len(content):,} bytes, more than the {MOST_BYTES:,} of a record")
    write_atomic(path, content, sync=True)


def to_json(record: Record) -> dict[str, Any]:
    """The JSON values that are stored, without secrets and with their digest."""
    value = without_secrets(record.to_json())
    value["digest"] = digest(value)
    return value


def digest(value: dict[str, Any]) -> str:
    """The sha256 of a record's JSON, whatever its order and spaces, without the digest in it."""
    rest = {name: item for name, item in value.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def has_digest(content: bytes, stated: str) -> bool:
    """Whether the digest is that of a record's bytes; msgspec reads them three times as fast as Python's parser."""
    with contextlib.suppress(msgspec.MsgspecError):
        if digest(msgspec.json.decode(content)) == stated:
            return True
    return digest(json.loads(content)) == stated


def read(path: Path) -> Record:
    """The record in a file, checked; its digest, which is the file's, is left out.

    Raises:
        BrokenRecord: it is not JSON, does not follow the schema, contradicts itself, or is no file of that size. The
            error names the file.
        EnvironmentProblem: it cannot be opened, or is of another version of the schema.
    """
    try:
        content = regular(path, most=MOST_BYTES).read_bytes()
    except EnvironmentProblem as problem:
        raise BrokenRecord(problem.what, problem.known, _todo(path)) from None
    except OSError as error:
        kind = BrokenRecord if isinstance(error, IsADirectoryError) else EnvironmentProblem
        raise kind(_unreadable(path), str(error), _todo(path)) from error
    record = parse(content, path)
    _check_folder(record, path)
    return record


def parse(content: bytes, path: Path) -> Record:
    """The record in the bytes of a file, checked but for the name of its folder; the digest is left out.

    Raises:
        BrokenRecord, EnvironmentProblem: as `read`; the error names `path`.
    """
    try:
        try:
            record = _DECODER.decode(content)
            _check_content(record, path)
        except msgspec.MsgspecError:  # to name the field, and to read what msgspec does not: lone surrogates
            record = validate(json.loads(content.decode()), path)
        if record.digest and not has_digest(content, record.digest):
            raise _invalid(path, "digest: it is not that of the content, which was changed after it had been written")
    except (ValueError, RecursionError) as error:
        raise BrokenRecord(_unreadable(path), str(error) or type(error).__name__, _todo(path)) from error
    return structs.replace(record, digest="") if record.digest else record


def stamps(out: Path) -> dict[str, Stamp]:
    """The names of the folders in `out` that hold a record, sorted, each with the stamp of its file."""
    found: dict[str, Stamp] = {}
    with contextlib.suppress(OSError), os.scandir(out) as entries:  # there is no such folder, or it may not be read
        for entry in entries:
            try:
                status = os.stat(f"{entry.path}/{FILE}")  # noqa: PTH116 - 100,000 Paths take as long as all the rest
            except OSError:  # a file, a folder without a record, or one that is gone again
                continue
            found[entry.name] = status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino
    return dict(sorted(found.items()))


def iterate(out: Path) -> Iterator[Record | BenchError]:
    """Read the records of a folder one at a time, in the order of run ids: each, or what is wrong with its file."""
    for name in stamps(out):
        try:
            yield read(out / name / FILE)
        except BenchError as problem:
            yield problem


def load_all(out: Path) -> tuple[list[Record], list[BenchError]]:
    """Every record of a folder in the order of run ids, and a problem, naming its file, for each that is none."""
    with collecting_paused():
        return separate(iterate(out))


def separate(found: Iterator[T | BenchError]) -> tuple[list[T], list[BenchError]]:
    """What was read, and the problems."""
    values: list[T] = []
    problems: list[BenchError] = []
    for one in found:
        if isinstance(one, BenchError):
            problems.append(one)
        else:
            values.append(one)
    return values, problems


@contextlib.contextmanager
def collecting_paused() -> Generator[None]:
    """Read many records without the garbage collector, which would search them again and again, and find nothing:
    JSON has no cycles."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
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
    ids = sorted(p.parent.name for p in out.glob(f"{prefix}*/{FILE}") if is_run_id(p.parent.name))
    if len(ids) != 1:
        known = f"it could be {', '.join(ids[:5])}" + (" …" if len(ids) > 5 else "") if ids else f"looked in {out}"
        many = f"{len(ids)} runs in {out} begin" if ids else f"no run in {out} begins"
        raise UsageError(f"{many} with '{prefix}'", known, todo)
    return read(folder(out, ids[0]) / FILE)


def locate(out: Path, text: str) -> tuple[Record, Path]:
    """The record in the run's folder `text`, or else the one that `find` finds in `out`, and the run's folder."""
    given = Path(text).expanduser()
    if (given / FILE).is_file():
        return read(given.resolve() / FILE), given
    record = find(out, text)
    return record, folder(out, record.run_id)


def _check_content(record: Record, path: Path) -> None:
    """What the types of single fields do not show."""
    for reason in contradictions(record):
        raise _invalid(path, reason)


def _check_folder(record: Record, path: Path) -> None:
    """A copied or renamed folder would otherwise count one run twice."""
    if path.parent.name != record.run_id:
        raise _invalid(path, f"run_id: {record.run_id}, but the folder is named {path.parent.name!r}")


def _schema_version(value: object) -> object:
    return cast(dict[str, object], value).get("schema") if isinstance(value, dict) else None


def _with_keys(reason: str, value: object) -> str:
    """`path: reason` of msgspec's `reason - at `$.path``, with the keys of mappings, for which it writes `[...]`."""
    text, _, place = reason.rpartition(" - at `$")
    path, part = "", cast(Any, value)
    try:
        for name, index, key in re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]|(\[\.{3}\])", place if text else ""):
            if key:
                name = next(name for name in list(part) if _wrong_alone(name, part, reason, value))
            path += f"[{index}]" if index else f".{name}"
            part = part[int(index)] if index else part[name]
    except (LookupError, TypeError, StopIteration):  # a field's name can be made to look like a path
        return reason
    return f"{path.removeprefix('.')}: {text}" if path else reason


def _wrong_alone(key: str, mapping: dict[str, object], reason: str, value: object) -> bool:
    """Whether `value` is wrong for the same reason while `mapping`, a part of it, has this key alone."""
    others = {name: mapping.pop(name) for name in list(mapping) if name != key}
    try:
        msgspec.convert(value, Record)
    except msgspec.ValidationError as error:
        return str(error) == reason
    finally:
        mapping.update(others)
    return False


def _unreadable(path: Path) -> str:
    return f"{path}: cannot be read as a record"


def _invalid(path: Path, reason: str) -> BrokenRecord:
    reason = reason if len(reason) <= 200 else reason[:197] + "…"
    return BrokenRecord(f"{path}: not a valid record", reason, _todo(path))


def _todo(path: Path) -> str:
    return f"Remove {path.parent} and run the command again, or put the record back from a copy."
