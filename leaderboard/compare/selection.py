"""Selection of the two sides of a comparison: runs by id, by group, by method or by conditions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.config.options import show
from bench.core.errors import UsageError, did_you_mean
from bench.records.record import Record
from bench.records.spec import deciding
from leaderboard.tables.build import latest_runs
from leaderboard.tables.filters import Condition, lookup, parse
from leaderboard.tables.grouping import DataKey, Seed, data_key, group_by, seed_key

_SHOWN = 8
"""Maximum number of names in an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The runs of side `A` or `B`, and a description of their selection.

    Attributes:
        records: ordered by run id; only the newest of runs with the same specification, data and weights.
        superseded: number of older runs, which are left out.
    """

    name: str
    label: str
    records: tuple[Record, ...]
    superseded: int = 0


def select_sides(records: Sequence[Record], a: str, b: str) -> tuple[Side, Side]:
    """Select the sides that `a` and `b` name.

    A name is a method, the first digits of a run id or group id, or conditions joined by `&`. Trials of a learning-rate
    selection are left out unless selected by id or by a condition on `holdout`.

    Raises:
        UsageError: a name matches nothing or is ambiguous, or both sides have runs in common.
    """
    sides = _select_side(records, "A", a), _select_side(records, "B", b)
    ids_a, ids_b = ({run.run_id for run in side.records} for side in sides)
    shared = sorted(ids_a & ids_b)
    if shared and ids_a == ids_b:
        raise UsageError(
            f"A '{a}' and B '{b}' are the same runs",
            f"runs: {some(shared, _SHOWN)}",
            "Name two different runs, groups or filters; `bench list runs` shows what is there.",
        )
    if shared:
        raise UsageError(
            f"A '{a}' and B '{b}' share {len(shared)} of their runs",
            f"shared: {some(shared, _SHOWN)}",
            "Narrow one of them, such as method=lora&method.rank=8.",
        )
    return sides


def some(texts: Sequence[str], most: int = 6) -> str:
    """The first few texts and, if some are left out, the total number."""
    return ", ".join(texts[:most]) + (f" … ({len(texts)} in all)" if len(texts) > most else "")


def _select_side(records: Sequence[Record], name: str, text: str) -> Side:
    if re.search("[=<>]", text):
        return _filtered(records, name, text)
    of_method = [run for run in records if run.spec.method == text and not run.spec.holdout]
    if of_method:
        return _side(name, f"method {text}", of_method)
    runs = [run for run in records if run.run_id == text]
    groups: dict[str, list[Record]] = {}
    if text and not runs:
        runs = sorted((run for run in records if run.run_id.startswith(text)), key=lambda run: run.run_id)
        groups = group_by((run for run in records if run.group_id.startswith(text)), lambda run: run.group_id)
    matches = {_run_label(run): [run] for run in runs}
    matches |= {_group_label(groups[group_id]): groups[group_id] for group_id in sorted(groups)}
    if len(matches) > 1:
        raise UsageError(
            f"{name} '{text}' begins {len(matches)} ids",
            f"it could be {some([*matches], _SHOWN)}",
            "Give more digits of one of them.",
        )
    if matches:
        return _side(name, *matches.popitem())
    methods = sorted({run.spec.method for run in records if not run.spec.holdout})
    raise UsageError(
        f"{name}: no run, group or method '{text}'",
        f"of these {len(records)} runs the methods are {some(methods, _SHOWN)}",
        did_you_mean(text, methods)
        or "Give a method, digits that begin an id (see `bench list runs`), or a condition such as method=lora.",
    )


def _filtered(records: Sequence[Record], name: str, text: str) -> Side:
    conditions: list[Condition] = []
    for part in text.split("&"):
        try:
            conditions.append(parse(part))
        except UsageError as error:
            what, todo = f"{name} '{text}': '{part}' is not a condition", "Such as method=lora or 'method=lora&seed<3'."
            raise UsageError(what, error.known, todo) from error
    trials = any(condition.name == "holdout" for condition in conditions)
    kept = [run for run in records if trials or not run.spec.holdout]
    for condition in conditions:
        matching = [run for run in kept if condition.holds(run)]
        if not matching:
            raise _no_match(kept, name, condition)
        kept = matching
    return _side(name, text, kept)


def _no_match(runs: Sequence[Record], name: str, condition: Condition) -> UsageError:
    present = {show(value) for run in runs if (value := lookup(run, condition.name)) is not None}
    values = sorted(present, key=lambda value: (len(value), value))
    if not values:
        names = {"method", "task", "backbone", "seed", "lr", "state"}
        names |= {f"method.{option}" for run in runs for option in run.spec.options.method}
        return UsageError(
            f"{name}: no run of these {len(runs)} has a field '{condition.name}'",
            f"fields are those of a specification or record: {some(sorted(names), _SHOWN)}",
            did_you_mean(condition.name, sorted(names)) or "`bench show RUN --json` shows all of a record.",
        )
    return UsageError(
        f"{name}: no run of these {len(runs)} has {condition.name}{condition.sign}{condition.value}",
        f"{condition.name} is {some(values, _SHOWN)}",
        did_you_mean(condition.value, values) or "Choose one of these values, or leave the condition out.",
    )


def _side(name: str, label: str, records: Iterable[Record]) -> Side:
    def key(run: Record) -> tuple[str, DataKey, Seed]:
        return json.dumps(deciding(run.spec.to_json()), sort_keys=True), data_key(run), seed_key(run)

    latest, superseded = latest_runs(records, key)
    ordered = sorted(latest, key=lambda run: run.run_id)
    return Side(name=name, label=label, records=tuple(ordered), superseded=superseded)


def _run_label(run: Record) -> str:
    trial = ", a trial" if run.spec.holdout else ""
    return f"run {run.run_id} ({run.spec.method} on {run.spec.task}, seed {run.spec.seed}{trial})"


def _group_label(runs: Sequence[Record]) -> str:
    return f"group {runs[0].group_id} ({runs[0].spec.method} on {runs[0].spec.task}, {len(runs)} runs)"
