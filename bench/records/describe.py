"""The fields of a record for other programs and for docs/record.md: `python -m bench.records.describe` prints its JSON
schema, with `--table` the rows of the documentation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.records.schema import SCHEMA, Record

_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "object",
    "null": "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a record.

    Attributes:
        path: its place, such as `ranks[].layer`.
        holds: its type, in words.
        meaning: what it says.
        required: whether every record has it.
    """

    path: str
    holds: str
    meaning: str
    required: bool

    def row(self) -> str:
        """Its line in the tables of docs/record.md."""
        return f"| `{self.path}` | {self.holds} | {self.meaning} |"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a record (draft 2020-12). What depends on the state is in its description alone."""
    _, parts = msgspec.json.schema_components([Record], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **parts.pop("Record"),
        "title": f"lowrank-bench record, schema version {SCHEMA}",
        "$defs": parts,
    }


def fields() -> Iterator[Field]:
    """Every field, each object before its own fields."""
    made = json_schema()
    yield from _fields(made, made["$defs"], "", ())


def _fields(part: dict[str, Any], parts: dict[str, Any], prefix: str, inside: tuple[str, ...]) -> Iterator[Field]:
    required = part.get("required", ())
    for name, value in part.get("properties", {}).items():
        path = prefix + name
        choices = [_resolved(one, parts) for one in value.get("anyOf", [value])]
        holds = " or ".join(sorted({_holds(one) for one in choices}, key=lambda text: (text == "null", text)))
        yield Field(path=path, holds=holds, meaning=value.get("description", ""), required=name in required)
        for one in choices:
            items = _resolved(one.get("items") or {}, parts)
            for inner, place in ((one, f"{path}."), (items, f"{path}[].")):
                title = inner.get("title", "")
                if title not in inside:  # the parent of a parent is described once
                    yield from _fields(inner, parts, place, (*inside, title) if title else inside)


def _resolved(part: dict[str, Any] | bool, parts: dict[str, Any]) -> dict[str, Any]:
    if isinstance(part, bool):
        return {}
    return parts[part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def _holds(part: dict[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" if isinstance(value, str) else str(value) for value in part["enum"])
    return "16 hex digits" if "pattern" in part else _TYPES[part["type"]]


if __name__ == "__main__":
    print("\n".join(one.row() for one in fields()) if "--table" in sys.argv else json.dumps(json_schema(), indent=1))
