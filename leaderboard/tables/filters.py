"""Filters on records: names with wildcards, and conditions such as `seed<3`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

from bench.config.options import show
from bench.core.errors import UsageError, did_you_mean
from bench.records.fields import Part
from bench.records.record import Record

_WHERE = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
_SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def filter_runs(
    records: Sequence[Record],
    *,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    backbones: Sequence[str] = (),
    sources: Sequence[str] = (),
    where: Sequence[str] = (),
) -> list[Record]:
    """Return the records for which all filters hold; an empty one keeps everything. `*` in a name is a wildcard.

    Args:
        tasks: suites or tasks.
        backbones: names as in a record or as requested.
        sources: kinds of data source (`directory`, `hub`, …), or their revisions.
        where: conditions `name=value` (or !=, <, <=, >, >=): a field of the specification (`seed<3`, `lr>=1e-3`), an
            option by its `--set` name (`method.rank=8`), or a path in the record (`cost.device=cpu`, `state=done`).

    Raises:
        UsageError: a name matches no record, a condition cannot be parsed, or no record is left.
    """
    named: dict[str, tuple[Sequence[str], Callable[[Record], set[str]]]] = {
        "--tasks": (tasks, lambda r: {r.spec.task, r.spec.task.partition("/")[0]}),
        "--methods": (methods, lambda r: {r.spec.method}),
        "--backbone": (backbones, lambda r: {r.spec.backbone, r.backbone.name}),
        "--source": (sources, lambda r: {r.source.kind, r.source.revision}),
    }
    kept = list(records)
    for flag, (patterns, names) in named.items():
        _check_names(flag, patterns, {name for run in records for name in names(run)})
        kept = [run for run in kept if not patterns or any(_matches(names(run), pattern) for pattern in patterns)]
    for condition in map(parse, where):
        kept = [run for run in kept if condition.holds(run)]
    if records and not kept:
        flags = [f"{flag} {','.join(patterns)}" for flag, (patterns, _) in named.items() if patterns]
        flags += [f"--where '{condition}'" for condition in where]
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
        value = lookup(record, self.name)
        if not isinstance(value, str | int | float):
            return self.sign == "!="
        try:
            return _SIGNS[self.sign](float(show(value)), float(self.value))
        except ValueError:
            return _SIGNS[self.sign](show(value), self.value)


def parse(text: str) -> Condition:
    """Raises UsageError if the text is not a name, a sign and a value."""
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


def _matches(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _check_names(flag: str, patterns: Sequence[str], known: set[str]) -> None:
    for pattern in patterns:
        if known and not _matches(known, pattern):
            raise UsageError(
                f"{flag}: no run matches '{pattern}'",
                f"there are {', '.join(sorted(known)[:20])}",
                did_you_mean(pattern, sorted(known)) or "Choose one of them, or a pattern with *.",
            )
