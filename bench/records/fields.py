"""Field types of a record, and the base of its parts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

SCHEMA = 2
"""Version of the schema that this code writes and reads."""
LARGEST = 2**63 - 1
"""Larger integers are no count of anything, and other JSON readers do not hold them."""

DEEPEST = 64
"""Levels of nesting in a record: objects, lists, and runs that trained a backbone."""

State = Literal["running", "done", "failed", "oom", "diverged", "cancelled", "preempted"]
Edge = Literal["", "smallest", "largest"]
MirrorKind = Literal["wandb", "tensorboard", "csv", "mlflow"]
Quantity = Literal["updates", "weights", "gradients", "steps", "activations"]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Real = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
RunId = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Option = str | Whole | float | bool | None
Space = dict[str, Option]
"""Options of a namespace."""
Scores = dict[str, dict[str, float]]
"""Split → metric → value."""
FreeForm = dict[str, Any]
"""JSON values of which only the writer knows the names."""


def about(text: str) -> Meta:
    return Meta(description=text)


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Base of all parts. Only a field with a default may be absent in a file, and is where it has that value."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as a parser reads them from a file: lists, no tuples."""
        return json.loads(json.dumps(msgspec.to_builtins(self)))


def unusable(value: object, field: str = "", depth: int = 0) -> Iterator[str]:
    """What a JSON value holds that a record must not: NaN, an infinity, an integer beyond 64 bits, or deep nesting."""
    if depth > DEEPEST:
        yield f"{field[:60]}: nested deeper than {DEEPEST} levels"
    elif isinstance(value, dict):
        for key, item in cast(dict[str, object], value).items():
            yield from unusable(item, f"{field}.{key}" if field else key, depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast(list[object], value)):
            yield from unusable(item, f"{field}[{index}]", depth + 1)
    elif (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) > LARGEST):
        yield f"{field or 'record'}: not a finite number of 64 bits"
