"""Differences between the specifications of two sides, and cautions: those that make a comparison of scores unfair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.records.record import Record
from bench.records.schema import Option
from leaderboard.compare.selection import Side
from leaderboard.tables.grouping import backbone_name, format_number, format_value, short_task

_NOT_LISTED = {"seed", "task", "lr", "select", "select_on", "backbone", "out", "track", "start", "options"}
"""Fields of a specification that are shown in another form, or that only say where files are."""
_MAY_VARY = ("git", "python", "platform", "device", "accelerator", "devices", "runtime.", "package ", "weights", "lr")
"""First letters of fields that may vary between runs of one configuration."""
_SHOWN = 6

Values = dict[str, dict[str, set[str]]]
"""Task → field → values; the task is empty if the sides have no common task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """One field in which the sides differ.

    Attributes:
        name: name in `--set` or in the record.
        a, b: its values, each with its tasks unless all common tasks have it.
        cautioned: a caution names it.
    """

    name: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    cautioned: bool


class Caution(NamedTuple):
    """A reason why the comparison of scores is unfair: its kind, a sentence, and the fields that differ."""

    code: str
    text: str
    fields: tuple[str, ...] = ()


def compare_specs(a: Side, b: Side) -> tuple[tuple[FieldDifference, ...], int, tuple[Caution, ...]]:
    """Return the fields that differ, the number of equal fields, and the cautions.

    Fields are compared task by task over the common tasks. Without common tasks all runs of a side are taken together,
    and fields of a task (data, examples) are left out.
    """
    tasks = sorted({run.spec.task for run in a.records} & {run.spec.task for run in b.records})
    mine, theirs = (_values(side, tasks) for side in (a, b))
    cautions = tuple(_cautions(a, b, mine, theirs))
    cautioned = {name for caution in cautions for name in caution.fields}
    names = list(dict.fromkeys(name for values in (mine, theirs) for fields in values.values() for name in fields))
    fields: list[FieldDifference] = []
    for name in names:
        if differing := _differing_tasks(mine, theirs, name):
            one, two = (_describe(values, name, differing) for values in (mine, theirs))
            fields.append(FieldDifference(name=name, a=one, b=two, cautioned=name in cautioned))
    return tuple(fields), len(names) - len(fields), cautions


def _fields(run: Record) -> Iterator[tuple[str, str]]:
    """Name and text of every field of the specification, data, learning rate and provenance of a run."""
    spec, provenance, cost = run.spec, run.provenance, run.cost
    yield "backbone", backbone_name(run.backbone)
    for name in spec.__struct_fields__:
        if name not in _NOT_LISTED:
            yield name, _text(getattr(spec, name))
    yield from ((name, _text(value)) for name, value in spec.options.flat().items())
    if run.lr is not None:
        yield "lr", format_number(run.lr)
    yield "lr chosen", _selected_from(run)
    yield "weights", run.backbone.weights_hash[:12]
    yield "head pooling", run.backbone.pooling
    yield "data kind", run.source.kind
    yield "data revision", run.source.revision
    yield "data hash", run.source.data_hash[:12]
    yield "data version", str(run.task.version)
    yield "training examples", str(run.source.train_examples)
    if cost:
        yield "steps done", str(cost.steps)
        yield "examples per step", f"{cost.samples / max(1, cost.steps):.1f}"
        yield "device", f"{cost.devices} × {cost.device}"
    yield "git", (provenance.git or "–")[:12]
    yield "python", provenance.python
    yield "platform", provenance.platform
    yield from ((f"package {name}", version) for name, version in sorted(provenance.packages.items()))


def _values(side: Side, tasks: Sequence[str]) -> Values:
    found: Values = {task: {} for task in tasks or [""]}
    for run in side.records:
        task = run.spec.task if tasks else ""
        for name, value in _fields(run) if task in found else ():
            if task or not name.startswith(("data ", "training examples")):
                found[task].setdefault(name, set()).add(value)
    return found


def _differing_tasks(mine: Values, theirs: Values, *names: str) -> list[str]:
    """Tasks in which one of these fields differs."""
    return [t for t in mine if any(mine[t].get(name, set()) != theirs[t].get(name, set()) for name in names)]


def _describe(values: Values, name: str, tasks: Iterable[str]) -> tuple[str, ...]:
    """Values of a field in `tasks`, each with its tasks unless all tasks have it."""
    tasks_of: dict[str, list[str]] = {}
    for task in tasks:
        for value in values[task].get(name, ()):
            tasks_of.setdefault(value, []).append(task)

    def text(value: str) -> str:
        everywhere = len(tasks_of[value]) == len(values)
        return value if everywhere else f"{value} ({', '.join(map(short_task, tasks_of[value]))})"

    return tuple(text(value) for value in sorted(tasks_of, key=lambda v: (len(v), v)))


def _cautions(a: Side, b: Side, mine: Values, theirs: Values) -> Iterator[Caution]:
    def differing(*names: str) -> list[str]:
        return [name for name in names if _differing_tasks(mine, theirs, name)]

    def both(name: str) -> str:
        return "; ".join(
            f"{side.name} {some(_describe(values, name, mine)) or '–'}" for side, values in ((a, mine), (b, theirs))
        )

    for code, names, reason in (
        ("backbone", ("backbone", "weights"), "the backbones or weights differ, which affects the scores"),
        ("steps", ("steps done", "max_steps", "epochs"), "the lengths of training differ"),
        ("batch", ("batch_size", "examples per step"), "the batch sizes differ"),
        ("examples", ("train_samples", "training examples"), "the numbers of training examples differ"),
        ("precision", ("precision",), "the precisions differ"),
    ):
        if found := differing(*names):
            yield Caution(code, f"{reason} ({found[0]}: {both(found[0])})", tuple(found))
    if found := differing("data hash", "data version"):
        tasks = some([short_task(task) for task in _differing_tasks(mine, theirs, *found)])
        text = f"the data of {tasks} differ: no difference of scores is computed for them"
        yield Caution("data", text, (*found, *differing("data kind", "data revision")))
    yield from _selection(a, b, differing("lr chosen"))
    yield from _mixed(((a, mine), (b, theirs)))
    for side in (a, b):
        states = Counter(run.state for run in side.records if run.state != "done")
        if states:
            counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            text = f"{counts} of the {len(side.records)} runs of {side.name}: its scores are from the other runs"
            yield Caution("failures", text)


def _selection(a: Side, b: Side, fields: Sequence[str]) -> Iterator[Caution]:
    if not fields:
        return

    reasons: list[tuple[str, Callable[[Record], str]]] = [
        ("the learning rate of one side was selected, of the other given", _lr_choice),
        ("the learning rates were selected by different numbers of trials", _trials),
        ("the learning rates were selected on different tasks", _selection_task),
    ]
    for reason, value in reasons:
        one, two = ({value(run) for run in side.records} for side in (a, b))
        if one != two:
            yield Caution("selection", f"{reason} (A {some(sorted(one))}; B {some(sorted(two))})", tuple(fields))
            return


def _mixed(sides: Iterable[tuple[Side, Values]]) -> Iterator[Caution]:
    """Cautions for sides with several configurations on one task."""
    for side, values in sides:
        several = {n: v for fields in values.values() for n, v in fields.items() if len(v) > 1 and _decides(n)}
        if several:
            fields = [f"{name} {some(sorted(values))}" for name, values in several.items()]
            text = f"{side.name} mixes configurations ({'; '.join(fields[:3])}): its score is a mean over them"
            yield Caution("mixed", text, tuple(several))


def _decides(name: str) -> bool:
    return not (name.startswith(_MAY_VARY) and name != "lr chosen") and name not in ("steps done", "examples per step")


def some(texts: Sequence[str]) -> str:
    """The first few texts and, if some are left out, the total number."""
    return ", ".join(texts[:_SHOWN]) + (f" … ({len(texts)} in all)" if len(texts) > _SHOWN else "")


def _lr_choice(run: Record) -> str:
    return "selected" if run.spec.lr is None else "given"


def _trials(run: Record) -> str:
    return str(len(run.selection.trials if run.selection else run.spec.select))


def _selection_task(run: Record) -> str:
    return run.spec.select_on or "the task itself"


def _selected_from(run: Record) -> str:
    if run.spec.lr is not None:
        return "given"
    return f"selected from {', '.join(map(format_number, run.spec.select))} on {_selection_task(run)}"


def _text(value: Option) -> str:
    return "none" if value is None else format_value(value)
