"""Which runs a leaderboard is of: filters on records."""

from __future__ import annotations

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
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to keep; an empty field keeps everything, several fields must all hold.

    Attributes:
        tasks: suites, tasks, or patterns with `*`.
        methods: names or patterns.
        backbones: names as in a record, or as they were asked for, or patterns.
        sources: kinds of data source (`directory`, `hub`, …), their revisions, or patterns.
        where: conditions `name=value` (or !=, <, <=, >, >=): a field of the specification (`seed<3`, `lr>=1e-3`), an
            option as `--set` names it (`method.rank=8`), or a place in the record (`cost.device=cpu`, `state=done`).
    """

    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    where: tuple[str, ...] = ()

    def apply(self, records: Sequence[Record]) -> list[Record]:
        """The records that fit.

        Raises:
            UsageError: a name fits no record, a condition cannot be read, or nothing is left.
        """
        named: dict[str, tuple[tuple[str, ...], Callable[[Record], set[str]]]] = {
            "--tasks": (self.tasks, lambda r: {r.spec.task, r.spec.task.partition("/")[0]}),
            "--methods": (self.methods, lambda r: {r.spec.method}),
            "--backbone": (self.backbones, lambda r: {r.spec.backbone, r.backbone.name}),
            "--source": (self.sources, lambda r: {r.source.kind, r.source.revision}),
        }
        kept = list(records)
        for flag, (wanted, names) in named.items():
            _check_names(flag, wanted, {name for run in records for name in names(run)})
            kept = [run for run in kept if not wanted or any(_fits(name, wanted) for name in names(run))]
        for condition in map(parse, self.where):
            kept = [run for run in kept if condition.holds(run)]
        if records and not kept:
            raise UsageError(
                "no run fits all filters",
                f"{len(records)} runs are there; {', '.join(self._words())}",
                "Leave one of the filters out.",
            )
        return kept

    def _words(self) -> Iterable[str]:
        for flag, values in (("--tasks", self.tasks), ("--methods", self.methods)):
            yield from ([f"{flag} {','.join(values)}"] if values else [])
        for flag, values in (("--backbone", self.backbones), ("--source", self.sources)):
            yield from ([f"{flag} {','.join(values)}"] if values else [])
        yield from (f"--where '{condition}'" for condition in self.where)


@dataclass(frozen=True, slots=True)
class Condition:
    """`name` compared with `value` as `sign` says: as numbers where both are, else as text."""

    name: str
    sign: str
    value: str

    def holds(self, record: Record) -> bool:
        """Whether it does; a field that a record lacks, or that is null, equals nothing and is below nothing."""
        found = lookup(record, self.name)
        if not isinstance(found, str | int | float):
            return self.sign == "!="
        if isinstance(found, bool):
            found = str(found).lower()
        mine, theirs = _number(found), _number(self.value)
        if mine is not None and theirs is not None:
            return _COMPARE[self.sign](mine, theirs)
        return _COMPARE[self.sign](str(found), self.value)


def parse(text: str) -> Condition:
    """A condition as `--where` takes it.

    Raises:
        UsageError: it is not a name, a sign and a value.
    """
    found = _WHERE.fullmatch(text)
    if not found:
        raise UsageError(
            f"--where '{text}' is no condition",
            "a condition is a name, one of = != < <= > >=, and a value",
            "Such as --where 'seed<3', --where method.rank=8, --where state=done.",
        )
    return Condition(*found.groups())


def lookup(record: Record, name: str) -> object:
    """The value of a field by its name in the specification or in `--set`, or by its place in the record."""
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


def _fits(name: str, wanted: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in wanted)


def _check_names(flag: str, wanted: Sequence[str], known: set[str]) -> None:
    for pattern in wanted:
        if known and not any(fnmatchcase(name, pattern) for name in known):
            raise UsageError(
                f"{flag}: no run of '{pattern}'",
                f"there are {', '.join(sorted(known)[:20])}",
                did_you_mean(pattern, sorted(known)) or "Choose one of them, or a pattern with *.",
            )


def _number(value: str | float) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
