"""Records that tests change: a draft is a record's JSON whose fields may be set as attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from bench.records import record as records
from bench.records.files import hashes
from bench.records.record import Record
from leaderboard.tables.build import build_tables
from leaderboard.tables.table import Row


class Draft(dict[str, Any]):
    """A JSON object with its keys as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def draft(value: Any) -> Any:
    """A record, or a part of its JSON, to be changed."""
    if isinstance(value, Record):
        return draft(value.to_json())
    if isinstance(value, dict):
        return Draft({key: draft(item) for key, item in value.items()})
    return [draft(item) for item in value] if isinstance(value, list | tuple) else value


def finished(changed: Any) -> Record:
    """The record of a draft."""
    return msgspec.convert(changed, Record)


def altered(record: Record, change: Callable[[Any], object]) -> Record:
    """The record after `change(draft)`."""
    changed = draft(record)
    change(changed)
    return finished(changed)


def list_files(folder: Path) -> None:
    """Write the record of a run's folder anew, with the hashes of the files that are there now."""
    names = [path.name for path in folder.iterdir() if path.name != records.FILE]
    made = records.read(folder / records.FILE)
    records.write(structs.replace(made, files=hashes(folder, names)), folder)


def build_rows(records: Iterable[Record], *, baseline: str | None = None) -> list[Row]:
    """The rows of all tables."""
    return [row for table in build_tables(records, baseline=baseline) for row in table.rows]
