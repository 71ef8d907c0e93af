"""Differences between the specifications of two sides, and cautions: those that make a comparison of scores unfair."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from bench.records.fields import Option
from bench.records.record import Record
from leaderboard.compare.selection import Side, some
from leaderboard.tables.grouping import backbone_name, format_number, format_value, short_task

_NOT_LISTED = {
    "seed",
    "task",
    "lr",
    "select",
    "space",
    "trials",
    "select_on",
    "backbone",
    "out",
    "track",
    "start",
    "options",
}
"""Fields of a specification that are shown in another form, or that only say where files are."""
_MAY_VARY = (
    "git", "python", "platform", "device", "accelerator", "runtime.", "package ", "weights", "lr", "steps done",
    "examples per step",
)  # fmt: skip
"""First letters of fields that may vary between runs of one configuration."""
_UNFAIR = (
    ("backbone", ("backbone", "weights"), "the backbones or weights differ, which affects the scores"),
    ("steps", ("steps done", "max_steps", "epochs"), "the lengths of training differ"),
    ("batch", ("batch_size", "examples per step"), "the batch sizes differ"),
    ("examples", ("train_samples", "training examples"), "the numbers of training examples differ"),
    ("precision", ("precision",), "the precisions differ"),
)
"""Code of a caution, the fields that it is about, and the reason."""

Values = Mapping[str, Mapping[str, set[str]]]
"""Task → field → values of a side; the task is empty if the sides have no common task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """A field, named as in `--set`, in which the sides differ; its values, with their tasks unless all have them."""

    name: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    cautioned: bool


@dataclass(frozen=True, slots=True)
class Caution:
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
    values_a, values_b = (_values(side, tasks) for side in (a, b))
    cautions = tuple(_cautions(a, b, values_a, values_b))
    cautioned = {name for caution in cautions for name in caution.fields}
    names = dict.fromkeys(name for values in (values_a, values_b) for fields in values.values() for name in fields)
    fields = tuple(
        FieldDifference(
            name=name,
            a=_describe(values_a, name, differing),
            b=_describe(values_b, name, differing),
            cautioned=name in cautioned,
        )
        for name in names
        if (differing := _differing_tasks(values_a, values_b, name))
    )
    return fields, len(names) - len(fields), cautions


def _fields(run: Record) -> Iterator[tuple[str, str]]:
    """Name and text of every field of the specification, data, learning rate and provenance of a run."""
    spec, provenance, cost = run.spec, run.provenance, run.cost
    yield "backbone", backbone_name(run.backbone)
    for name in spec.__struct_fields__:
        if name not in _NOT_LISTED:
            yield name, _text(getattr(spec, name))
    by = f" by {spec.trials} trials" if spec.trials else ""
    selected = {name: f"selected from {_text(values)}{by}" for name, values in spec.space.items()}
    yield from ((name, _text(value)) for name, value in {**spec.options.flat(), **selected}.items())
    if run.lr is not None:
        yield "lr", format_number(run.lr)
    candidates = f"selected from {', '.join(map(format_number, spec.select))}{by} on {_selection_task(run)}"
    yield "lr chosen", candidates if spec.lr is None else "given"
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
    values: dict[str, defaultdict[str, set[str]]] = {task: defaultdict(set) for task in tasks or [""]}
    for run in side.records:
        task = run.spec.task if tasks else ""
        for name, value in _fields(run) if task in values else ():
            if task or not name.startswith(("data ", "training examples")):
                values[task][name].add(value)
    return values


def _differing_tasks(a: Values, b: Values, *names: str) -> list[str]:
    return [task for task in a if any(a[task].get(name) != b[task].get(name) for name in names)]


def _describe(values: Values, name: str, tasks: Iterable[str]) -> tuple[str, ...]:
    """Values of a field in `tasks`, each with its tasks unless all tasks have it."""
    tasks_of: defaultdict[str, list[str]] = defaultdict(list)
    for task in tasks:
        for value in values[task].get(name, ()):
            tasks_of[value].append(short_task(task))
    return tuple(
        value if len(tasks_of[value]) == len(values) else f"{value} ({', '.join(tasks_of[value])})"
        for value in sorted(tasks_of, key=lambda value: (len(value), value))
    )


def _cautions(a: Side, b: Side, values_a: Values, values_b: Values) -> Iterator[Caution]:
    def differing(*names: str) -> tuple[str, ...]:
        return tuple(name for name in names if _differing_tasks(values_a, values_b, name))

    for code, names, reason in _UNFAIR:
        if fields := differing(*names):
            in_a, in_b = (some(_describe(values, fields[0], values)) or "–" for values in (values_a, values_b))
            yield Caution(code, f"{reason} ({fields[0]}: A {in_a}; B {in_b})", fields)
    if fields := differing("data hash", "data version"):
        tasks = some([short_task(task) for task in _differing_tasks(values_a, values_b, *fields)])
        text = f"the data of {tasks} differ: no difference of scores is computed for them"
        yield Caution("data", text, (*fields, *differing("data kind", "data revision")))
    if fields := differing("lr chosen"):
        yield from _selection(a, b, fields)
    yield from chain(_mixed(a, values_a), _mixed(b, values_b))
    for side in (a, b):
        if states := Counter(run.state for run in side.records if run.state != "done"):
            counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            text = f"{counts} of the {len(side.records)} runs of {side.name}: its scores are from the other runs"
            yield Caution("failures", text)


def _selection(a: Side, b: Side, fields: tuple[str, ...]) -> Iterator[Caution]:
    reasons: dict[str, Callable[[Record], str]] = {
        "the learning rate of one side was selected, of the other given": (
            lambda run: "selected" if run.spec.lr is None else "given"
        ),
        "the learning rates were selected by different numbers of trials": (
            lambda run: str(len(run.selection.trials if run.selection else run.spec.select))
        ),
        "the learning rates were selected on different tasks": _selection_task,
    }
    for reason, value in reasons.items():
        in_a, in_b = (sorted({value(run) for run in side.records}) for side in (a, b))
        if in_a != in_b:
            yield Caution("selection", f"{reason} (A {some(in_a)}; B {some(in_b)})", fields)
            return


def _mixed(side: Side, values: Values) -> Iterator[Caution]:
    """A caution for a side with several configurations on one task."""
    several = {name: texts for fields in values.values() for name, texts in fields.items() if len(texts) > 1}
    deciding = [name for name in several if name == "lr chosen" or not name.startswith(_MAY_VARY)]
    if deciding:
        fields = "; ".join(f"{name} {some(sorted(several[name]))}" for name in deciding[:3])
        text = f"{side.name} mixes configurations ({fields}): its score is a mean over them"
        yield Caution("mixed", text, tuple(deciding))


def _selection_task(run: Record) -> str:
    return run.spec.select_on or "the task itself"


def _text(value: Option | Sequence[Option]) -> str:
    return "none" if value is None else format_value(value)
