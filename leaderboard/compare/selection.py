"""Selection of the two sides of a comparison: runs by id, by group, by method or by conditions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.core.errors import UsageError, did_you_mean
from bench.records.record import Record
from bench.records.spec import deciding
from leaderboard.tables.build import latest_runs
from leaderboard.tables.filters import Condition, lookup, parse
from leaderboard.tables.grouping import ColumnKey, Seed, column_key, seed_key

_SHOWN = 8
"""Maximum number of names in an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The runs of one side.

    Attributes:
        name: `A` or `B`.
        label: description of the selection.
        records: ordered by run id; only the newest of runs with the same specification, data and weights.
        superseded: number of older runs, which are left out.
    """

    name: str
    label: str
    records: tuple[Record, ...]
    superseded: int = 0


def select_sides(records: Sequence[Record], a: str, b: str) -> tuple[Side, Side]:
    """Select the sides that `a` and `b` name.

    Raises:
        UsageError: a name matches nothing or is ambiguous, or both sides have runs in common.
    """
    one, two = _select_side(records, "A", a), _select_side(records, "B", b)
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


def _select_side(records: Sequence[Record], name: str, text: str) -> Side:
    """Select side `name`: by conditions joined by `&`, by a method, or by the first digits of a run id or group id.

    Trials of a learning-rate selection are left out unless selected by id or by a condition on `holdout`.

    Raises:
        UsageError: `text` matches nothing or is ambiguous.
    """
    if re.search("[=<>]", text):
        return _filtered(records, name, text)
    of_method = [run for run in records if run.spec.method == text and not run.spec.holdout]
    if of_method:
        return _side(name, f"method {text}", of_method)
    runs = {run.run_id: run for run in records if text and run.run_id.startswith(text)}
    groups: dict[str, list[Record]] = {}
    for run in records:
        if text and run.group_id.startswith(text):
            groups.setdefault(run.group_id, []).append(run)
    runs, groups = ({text: runs[text]}, {}) if text in runs else (runs, groups)
    if len(runs) + len(groups) > 1:
        labels = [_run_label(run) for _, run in sorted(runs.items())]
        labels += [_group_label(groups[group_id]) for group_id in sorted(groups)]
        raise UsageError(
            f"{name} '{text}' begins {len(labels)} ids",
            f"it could be {_some(labels)}",
            "Give more digits of one of them.",
        )
    for run in runs.values():
        return _side(name, _run_label(run), [run])
    for group in groups.values():
        return _side(name, _group_label(group), group)
    methods = sorted({run.spec.method for run in records if not run.spec.holdout})
    raise UsageError(
        f"{name}: no run, group or method '{text}'",
        f"of these {len(records)} runs the methods are {_some(methods)}",
        did_you_mean(text, methods)
        or "Give a method, digits that begin an id (see `bench list runs`), or a condition such as method=lora.",
    )


def _filtered(records: Sequence[Record], name: str, text: str) -> Side:
    conditions = [_condition(name, text, part) for part in text.split("&")]
    trials = any(condition.name == "holdout" for condition in conditions)
    kept = [run for run in records if trials or not run.spec.holdout]
    for condition in conditions:
        matching = [run for run in kept if condition.holds(run)]
        if not matching:
            raise _no_match(kept, name, condition)
        kept = matching
    return _side(name, text, kept)


def _condition(name: str, text: str, part: str) -> Condition:
    try:
        return parse(part)
    except UsageError as error:
        raise UsageError(
            f"{name} '{text}': '{part}' is not a condition", error.known, "Such as method=lora or 'method=lora&seed<3'."
        ) from error


def _no_match(runs: Sequence[Record], name: str, condition: Condition) -> UsageError:
    found = {
        str(value).lower() if isinstance(value, bool) else str(value)
        for run in runs
        if (value := lookup(run, condition.name)) is not None
    }
    values = sorted(found, key=lambda value: (len(value), value))
    wanted = f"{condition.name}{condition.sign}{condition.value}"
    if not values:
        names = {"method", "task", "backbone", "seed", "lr", "state"}
        names |= {f"method.{option}" for run in runs for option in run.spec.options.method}
        return UsageError(
            f"{name}: no run of these {len(runs)} has a field '{condition.name}'",
            f"fields are those of a specification or record: {_some(sorted(names))}",
            did_you_mean(condition.name, sorted(names)) or "`bench show RUN --json` shows all of a record.",
        )
    return UsageError(
        f"{name}: no run of these {len(runs)} has {wanted}",
        f"{condition.name} is {_some(values)}",
        did_you_mean(condition.value, values) or "Choose one of these values, or leave the condition out.",
    )


def _side(name: str, label: str, records: Iterable[Record]) -> Side:
    def key(run: Record) -> tuple[str, ColumnKey, Seed]:
        return json.dumps(deciding(run.spec.to_json()), sort_keys=True), column_key(run), seed_key(run)

    latest, superseded = latest_runs(records, key)
    latest.sort(key=lambda run: run.run_id)
    return Side(name=name, label=label, records=tuple(latest), superseded=superseded)


def _run_label(run: Record) -> str:
    spec = run.spec
    trial = ", a trial" if spec.holdout else ""
    return f"run {run.run_id} ({spec.method} on {spec.task}, seed {spec.seed}{trial})"


def _group_label(runs: Sequence[Record]) -> str:
    return f"group {runs[0].group_id} ({runs[0].spec.method} on {runs[0].spec.task}, {len(runs)} runs)"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" … ({len(names)} in all)" if len(names) > _SHOWN else "")
