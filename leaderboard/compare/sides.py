"""The two sides of a comparison: runs by id, by group, by method or by conditions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.core.errors import UsageError, did_you_mean
from bench.records.record import Record
from bench.records.spec import deciding
from leaderboard.tables.grouping import ColumnKey, Seed, column_key, seed_key
from leaderboard.tables.select import Condition, lookup, parse

_KNOWN = 8
"""So many names at most in an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Runs that are compared as one.

    Attributes:
        name: `A` or `B`.
        label: what was asked for, in words.
        kind: how the runs were named.
        records: in the order of run ids; of runs with the same specification, data and weights only the newest.
        superseded: how many older ones were left out.
    """

    name: str
    label: str
    kind: Literal["run", "group", "method", "filter"]
    records: tuple[Record, ...]
    superseded: int = 0


def pair(records: Sequence[Record], a: str, b: str) -> tuple[Side, Side]:
    """The sides that `a` and `b` name.

    Raises:
        UsageError: one of them names nothing or several things, or both have runs in common.
    """
    one, two = find(records, "A", a), find(records, "B", b)
    ids = {run.run_id for run in one.records}
    shared = sorted(ids & {run.run_id for run in two.records})
    if shared and len(shared) == len(one.records) == len(two.records):
        raise UsageError(
            f"A '{a}' and B '{b}' are the same runs",
            f"runs: {_some(shared)}",
            "Name two different runs, groups or filters; `bench list runs` shows what is there.",
        )
    if shared:
        raise UsageError(
            f"A '{a}' and B '{b}' share {len(shared)} of their runs",
            f"shared: {_some(shared)}",
            "Narrow one of them, such as method=lora&method.rank=8.",
        )
    return one, two


def find(records: Sequence[Record], name: str, text: str) -> Side:
    """The side `name` that `text` names: a condition or several joined by `&`, a method, or the beginning of an id of
    a run or of a group. Trials of a learning-rate selection must be named by id, or by a condition on `holdout`.

    Raises:
        UsageError: nothing is called so, or several things are.
    """
    if re.search("[=<>]", text):
        return _filtered(records, name, text)
    of_method = [run for run in records if run.spec.method == text and not run.spec.holdout]
    if of_method:
        return _side(name, f"method {text}", "method", of_method)
    runs = {run.run_id: run for run in records if text and run.run_id.startswith(text)}
    groups: dict[str, list[Record]] = {}
    for run in records:
        if text and run.group_id.startswith(text):
            groups.setdefault(run.group_id, []).append(run)
    runs, groups = ({text: runs[text]}, {}) if text in runs else (runs, groups)
    if len(runs) + len(groups) > 1:
        said = [_run_label(run) for _, run in sorted(runs.items())]
        said += [_group_label(groups[one]) for one in sorted(groups)]
        raise UsageError(
            f"{name} '{text}' begins {len(said)} ids", f"it could be {_some(said)}", "Give more digits of one of them."
        )
    for run in runs.values():
        return _side(name, _run_label(run), "run", [run])
    for own in groups.values():
        return _side(name, _group_label(own), "group", own)
    methods = sorted({run.spec.method for run in records if not run.spec.holdout})
    raise UsageError(
        f"{name}: no run, group or method '{text}'",
        f"of these {len(records)} runs the methods are {_some(methods)}",
        did_you_mean(text, methods)
        or "Give a method, the beginning of an id (`bench list runs` shows them), or a condition such as method=lora.",
    )


def _filtered(records: Sequence[Record], name: str, text: str) -> Side:
    conditions = [_condition(name, text, part) for part in text.split("&")]
    trials = any(one.name == "holdout" for one in conditions)
    kept = [run for run in records if trials or not run.spec.holdout]
    for one in conditions:
        if not any(one.holds(run) for run in kept):
            raise _nothing(kept, name, one)
        kept = [run for run in kept if one.holds(run)]
    return _side(name, text, "filter", kept)


def _condition(name: str, text: str, part: str) -> Condition:
    try:
        return parse(part)
    except UsageError as error:
        raise UsageError(
            f"{name} '{text}': '{part}' is no condition", error.known, "Such as method=lora or 'method=lora&seed<3'."
        ) from error


def _nothing(left: Sequence[Record], name: str, condition: Condition) -> UsageError:
    found = {_written(value) for run in left if (value := lookup(run, condition.name)) is not None}
    values = sorted(found, key=lambda value: (len(value), value))
    wanted = f"{condition.name}{condition.sign}{condition.value}"
    if not values:
        names = {"method", "task", "backbone", "seed", "lr", "state"}
        names |= {f"method.{option}" for run in left for option in run.spec.options.method}
        return UsageError(
            f"{name}: no run of these {len(left)} has a field '{condition.name}'",
            f"fields are those of a specification or record: {_some(sorted(names))}",
            did_you_mean(condition.name, sorted(names)) or "`bench show RUN --json` shows all of a record.",
        )
    return UsageError(
        f"{name}: no run of these {len(left)} has {wanted}",
        f"{condition.name} is {_some(values)}",
        did_you_mean(condition.value, values) or "Choose one of these values, or leave the condition out.",
    )


def _side(name: str, label: str, kind: Literal["run", "group", "method", "filter"], records: Iterable[Record]) -> Side:
    best: dict[tuple[str, ColumnKey, Seed], Record] = {}
    given = sorted(records, key=lambda r: (r.state == "done", r.provenance.created, r.run_id))
    for run in given:
        best[json.dumps(deciding(run.spec.to_json()), sort_keys=True), column_key(run), seed_key(run)] = run
    kept = tuple(sorted(best.values(), key=lambda run: run.run_id))
    return Side(name=name, label=label, kind=kind, records=kept, superseded=len(given) - len(kept))


def _run_label(run: Record) -> str:
    spec = run.spec
    trial = ", a trial" if spec.holdout else ""
    return f"run {run.run_id} ({spec.method} on {spec.task}, seed {spec.seed}{trial})"


def _group_label(runs: Sequence[Record]) -> str:
    return f"group {runs[0].group_id} ({runs[0].spec.method} on {runs[0].spec.task}, {len(runs)} runs)"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_KNOWN]) + (f" … ({len(names)} in all)" if len(names) > _KNOWN else "")
