"""The fields of a record for other programs and for docs/record.md: `python -m bench.records.describe` prints its JSON
schema, with `--table` the rows of the documentation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from bench.records.fields import SCHEMA
from bench.records.schema import Record

Schema = dict[str, Any]
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}


class Field(NamedTuple):
    """One field of a record: its place such as `ranks[].layer`, its type in words, and whether every record has it."""

    path: str
    holds: str
    meaning: str
    required: bool

    def row(self) -> str:
        """Its line in the tables of docs/record.md."""
        return f"| `{self.path}` | {self.holds} | {self.meaning} |"


def json_schema() -> Schema:
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
    schema = json_schema()
    yield from _fields(schema, schema["$defs"], "", ())


def _fields(part: Schema, parts: Schema, prefix: str, inside: tuple[str, ...]) -> Iterator[Field]:
    for name, value in part.get("properties", {}).items():
        path = prefix + name
        choices = [_resolved(choice, parts) for choice in value.get("anyOf", [value])]
        holds = " or ".join(sorted({_holds(choice) for choice in choices}, key=lambda text: (text == "null", text)))
        yield Field(path, holds, value.get("description", ""), name in part.get("required", ()))
        for choice in choices:
            items = _resolved(choice.get("items") or {}, parts)
            for inner, place in ((choice, f"{path}."), (items, f"{path}[].")):
                title = inner.get("title", "")
                if title not in inside:  # the parent of a parent is described once
                    yield from _fields(inner, parts, place, (*inside, title) if title else inside)


def _resolved(part: Schema, parts: Schema) -> Schema:
    return parts[part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def _holds(part: Schema) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" if isinstance(value, str) else str(value) for value in part["enum"])
    kind: str = part["type"]
    return "16 hex digits" if "pattern" in part else _TYPES.get(kind, kind)


if __name__ == "__main__":
    print(
        "\n".join(field.row() for field in fields()) if "--table" in sys.argv else json.dumps(json_schema(), indent=1)
    )
