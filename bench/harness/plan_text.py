"""A plan as text: what will run, on what data, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from bench.api.backbone import Backbone
from bench.config.options import show
from bench.config.overrides import Name
from bench.core.text import format_count, table
from bench.harness.planner import Plan, PlannedRun
from bench.records.spec import RunSpec

if TYPE_CHECKING:
    from bench.harness.outlook import Forecast, Outlook


WIDTH = 120
"""Columns of a terminal that the table of runs takes at most."""
MOST_REASONS = 10
FAILED = ("failed", "oom", "diverged")
HEADER = ("run", "method", "task", "backbone", "seed", "lr", "trains", "steps", "state", "time", "options")
IN_HEADLINE = ("backbone", "method", "steps")
"""Columns that are left out where all runs have the same and there is no room: the headline says it."""
SHRINK = ("method", "task", "backbone", "options")
"""Columns whose texts may be cut."""


def describe(plan: Plan, found: Forecast) -> str:
    """Write a plan as `--dry-run` prints it: a row per run, what stands out, and the totals."""
    lines = [headline(plan), _table(found)]
    reasons = [f"{one.run.run_id} {one.state}: {one.why}" for one in found.runs if one.why]
    lines += reasons[:MOST_REASONS]
    lines += [f"… and {len(reasons) - MOST_REASONS} more like these"] if len(reasons) > MOST_REASONS else []
    return "\n".join([*lines, *notes(plan), *_totals(plan, found)])


def _table(found: Forecast) -> str:
    differing = _differing(found)
    rows = [_row(one, differing) for one in found.runs]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(HEADER) if name != "options" or differing}
    widths = {name: max(map(len, (name, *cells))) for name, cells in columns.items()}

    def spare() -> int:
        return WIDTH - sum(widths.values()) - 2 * len(widths)

    for name in IN_HEADLINE:
        if spare() < 0 and len({*columns[name]}) == 1:
            del columns[name], widths[name]
    while spare() < 0:
        widest = max((name for name in widths if name in SHRINK), key=lambda name: widths[name])
        if widths[widest] <= len(widest):
            break
        widths[widest] -= 1
    cut = [[_cut(cell, widths[name]) for cell in cells] for name, cells in columns.items()]
    return table([*columns], [*zip(*cut, strict=True)], indent="  ")


def _row(one: Outlook, differing: Collection[Name]) -> tuple[str, ...]:
    spec = one.run.spec
    keys = Counter(key for _, key in differing)
    given = [
        f"{key if keys[key] == 1 else f'{space}.{key}'}={value}"
        for (space, key), value in one.run.given.items()
        if (space, key) in differing
    ]
    return (
        one.run.run_id,
        spec.method,
        spec.task,
        spec.backbone,
        str(spec.seed),
        f"{spec.lr:g}" if spec.lr is not None else _rates(spec),
        "?" if one.trainable is None else format_count(one.trainable),
        str(one.steps),
        one.state,
        "" if one.left_alone or one.cannot_train else _time(one.seconds),
        " ".join(given),
    )


def _rates(spec: RunSpec) -> str:
    """`of 3`, or with `--trials` the range."""
    return f"{min(spec.select):g}–{max(spec.select):g}" if spec.trials else f"of {len(spec.select)}"


def _searched(run: PlannedRun) -> str:
    """What the trials of a run choose, with the candidates of options; empty for the learning rate alone."""
    options = [f"{name} of {', '.join(map(show, values))}" for name, values in run.spec.space]
    return " and ".join([*(["the learning rate"] if run.spec.select else []), *options]) if options else ""


def _differing(found: Forecast) -> set[Name]:
    """Options of which the runs have several values."""
    values: dict[Name, set[str]] = {}
    for one in found.runs:
        for name, value in one.run.given.items():
            values.setdefault(name, set()).add(value)
    return {name for name, several in values.items() if len(several) > 1}


def _totals(plan: Plan, found: Forecast) -> list[str]:
    """What is done, what is left, and how long that takes."""
    states = Counter(one.state for one in found.runs if one.left_alone)
    trials = sum(not one.left_alone for one in found.trials)
    counts = [f"{number} {state}" for state, number in states.items()]
    misfits = sum(one.cannot_train for one in found.runs)
    counts += [f"{sum(not one.left_alone for one in found.runs) - misfits} to train"]
    counts += [f"{misfits} that cannot train"] if misfits else []
    lines: list[str] = []
    if found.trials:
        more = ", and more while the best learning rate is at the end of those tried"
        more *= any(run.spec.widen for run in plan.runs)
        more += f", and {found.to_come} that follow from their results" if found.to_come else ""
        lines.append(f"first {len(found.trials)} trials on a split held out from train, {trials} to train{more}")
        lines += [f"they choose {what}" for what in dict.fromkeys(map(_searched, plan.runs)) if what]
    left = sum(not (one.left_alone or one.cannot_train) for one in (*found.runs, *found.trials))
    known = f"about {_time(found.seconds)} one after the other" if found.unknown < left else ""
    unknown = f"{found.unknown} of unknown time (--measure trains a few steps of each kind)" if found.unknown else ""
    lines.append(" · ".join(filter(None, (", ".join(counts), known, unknown))))
    if any(one.left_alone and one.state in FAILED for one in found.runs):
        lines.append("--retry trains again what failed")
    return lines


def _time(seconds: float | None) -> str:
    """`38 s`, `12 min`, `3.4 h`; `?` where it is unknown."""
    if seconds is None:
        return "?"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def headline(plan: Plan) -> str:
    """`9 runs · deeplora · minilm (22.7 M) · 150 steps of 16 · data: embedded`."""
    runs, first = plan.runs, plan.runs[0].spec
    methods = ", ".join(dict.fromkeys(run.spec.method for run in runs))
    names = ", ".join(dict.fromkeys(_sized(run.backbone) for run in runs))
    budget = f"{first.max_steps} steps" if first.max_steps else f"{first.epochs:g} epochs"
    sources = ", ".join(dict.fromkeys(f"{run.dataset.source} ({run.dataset.revision})" for run in runs))
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return f"{count} · {methods} · {names} · {budget} of {first.batch_size} · data: {sources}"


def _sized(backbone: Backbone) -> str:
    """`minilm (22.7 M)`, or `bert (random)`, which is still to be built and has no size yet."""
    size = "" if backbone.parameters is None else f"{backbone.parameters / 1e6:.1f} M"
    about = ", ".join(filter(None, ("" if backbone.pretrained else "random", size)))
    return f"{backbone.name} ({about})" if about else backbone.name


def notes(plan: Plan) -> list[str]:
    """What the user must see: fall-backs of data sources, warnings, what was matched, and what was left out and why."""
    fallen = dict.fromkeys(note for run in plan.runs for note in (*run.dataset.notes, *run.dataset.warnings))
    absent = [s.name for s in plan.skipped if s.absent]
    lines = list(fallen)
    if absent:
        lines.append(f"not in the data directory, so left out: {', '.join(absent)}")
    lines += dict.fromkeys(run.match.line() for run in plan.runs if run.match)
    return [*lines, *(f"cannot run {s.name}: {s.error}" for s in plan.broken)]
