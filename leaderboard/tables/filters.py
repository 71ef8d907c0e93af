"""Filters on records: names with wildcards, and conditions such as `seed<3`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from bench.core.errors import UsageError, did_you_mean
from bench.records.record import Record
from bench.records.schema import Part

_WHERE = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Filters that must all hold; an empty one keeps everything.

    Attributes:
        tasks: suites, tasks, or patterns with `*`.
        methods: names or patterns.
        backbones: names as in a record or as requested, or patterns.
        sources: kinds of data source (`directory`, `hub`, …), their revisions, or patterns.
        where: conditions `name=value` (or !=, <, <=, >, >=): a field of the specification (`seed<3`, `lr>=1e-3`), an
            option by its `--set` name (`method.rank=8`), or a path in the record (`cost.device=cpu`, `state=done`).
    """

    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    where: tuple[str, ...] = ()

    def apply(self, records: Sequence[Record]) -> list[Record]:
        """Return the records that match.

        Raises:
            UsageError: a name matches no record, a condition cannot be parsed, or no record is left.
        """
        named: dict[str, tuple[tuple[str, ...], Callable[[Record], set[str]]]] = {
            "--tasks": (self.tasks, lambda r: {r.spec.task, r.spec.task.partition("/")[0]}),
            "--methods": (self.methods, lambda r: {r.spec.method}),
            "--backbone": (self.backbones, lambda r: {r.spec.backbone, r.backbone.name}),
            "--source": (self.sources, lambda r: {r.source.kind, r.source.revision}),
        }
        kept = list(records)
        for flag, (patterns, names) in named.items():
            _check_names(flag, patterns, {name for run in records for name in names(run)})
            kept = [run for run in kept if not patterns or any(_matches(name, patterns) for name in names(run))]
        for condition in map(parse, self.where):
            kept = [run for run in kept if condition.holds(run)]
        if records and not kept:
            flags = [f"{flag} {','.join(patterns)}" for flag, (patterns, _) in named.items() if patterns]
            flags += [f"--where '{condition}'" for condition in self.where]
            raise UsageError(
                "no run matches all filters",
                f"there are {len(records)} runs; {', '.join(flags)}",
                "Leave one of the filters out.",
            )
        return kept


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of field `name` with `value`: as numbers if both are numbers, else as text."""

    name: str
    sign: str
    value: str

    def holds(self, record: Record) -> bool:
        """Whether it holds. For a missing or null field only `!=` does."""
        found = lookup(record, self.name)
        if not isinstance(found, str | int | float):
            return self.sign == "!="
        text = str(found).lower() if isinstance(found, bool) else str(found)
        number, wanted = _number(text), _number(self.value)
        if number is not None and wanted is not None:
            return _COMPARE[self.sign](number, wanted)
        return _COMPARE[self.sign](text, self.value)


def parse(text: str) -> Condition:
    """Parse a condition of `--where`.

    Raises:
        UsageError: the text is not a name, a sign and a value.
    """
    match = _WHERE.fullmatch(text)
    if not match:
        raise UsageError(
            f"--where '{text}' is not a condition",
            "a condition is a name, one of = != < <= > >=, and a value",
            "Such as --where 'seed<3', --where method.rank=8, --where state=done.",
        )
    return Condition(*match.groups())


def lookup(record: Record, name: str) -> object:
    """Value of a field, by its name in the specification or in `--set` or its path in the record; None if absent."""
    if name == "lr":
        return record.lr
    options = record.spec.options.flat()
    if name in options:
        return options[name]
    if name in record.spec.__struct_fields__:
        return getattr(record.spec, name)
    value: object = record
    for part in name.split("."):
        if isinstance(value, Part) and part in value.__struct_fields__:
            value = getattr(value, part)
        else:
            value = cast(dict[str, object], value).get(part) if isinstance(value, dict) else None
    return value


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_names(flag: str, patterns: Sequence[str], known: set[str]) -> None:
    for pattern in patterns:
        if known and not any(fnmatchcase(name, pattern) for name in known):
            raise UsageError(
                f"{flag}: no run matches '{pattern}'",
                f"there are {', '.join(sorted(known)[:20])}",
                did_you_mean(pattern, sorted(known)) or "Choose one of them, or a pattern with *.",
            )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
