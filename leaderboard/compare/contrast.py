"""How the specifications of two sides differ, and which of these differences make comparing their scores unfair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.records.record import Record
from bench.records.schema import Option
from leaderboard.compare.sides import Side
from leaderboard.tables.grouping import lineage, number, short

_ELSEWHERE = {"seed", "task", "lr", "select", "select_on", "backbone", "out", "track", "start", "options"}
"""Fields of a specification that are said otherwise, or that change nothing but where files lie."""
_MADE = ("git", "python", "platform", "device", "accelerator", "devices", "runtime.", "package ", "weights", "lr")
"""Beginnings of fields that may vary between runs of one configuration."""
_SHOWN = 6

Task = str
Values = dict[Task, dict[str, set[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field in which the sides differ.

    Attributes:
        name: as `--set` or the record calls it.
        a, b: its values; those that not every common task has are followed by the tasks that have them. Empty: none.
        marked: one of the cautions is about it.
    """

    name: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    marked: bool


class Caution(NamedTuple):
    """A reason why the scores are not fairly compared: a word for it, a sentence, and the fields it is about."""

    code: str
    text: str
    fields: tuple[str, ...] = ()


def common_tasks(a: Side, b: Side) -> list[Task]:
    """Tasks that both sides have runs of, in whatever state."""
    return sorted({run.spec.task for run in a.records} & {run.spec.task for run in b.records})


def contrast(a: Side, b: Side) -> tuple[tuple[Field, ...], int, tuple[Caution, ...]]:
    """The fields that differ, how many are equal, and what makes the comparison unfair.

    Fields are compared task by task over the common tasks; without any, all runs of a side are taken together, and
    what belongs to a task (data, examples) is left out.
    """
    tasks = common_tasks(a, b)
    mine, theirs = (_values(side, tasks) for side in (a, b))
    cautions = tuple(_cautions(a, b, mine, theirs))
    about = {name for caution in cautions for name in caution.fields}
    names = list(dict.fromkeys(name for values in (mine, theirs) for fields in values.values() for name in fields))
    fields: list[Field] = []
    for name in names:
        apart = [task for task in mine if mine[task].get(name, set()) != theirs[task].get(name, set())]
        if apart:
            told = (_told(values, name, apart) for values in (mine, theirs))
            fields.append(Field(name=name, a=next(told), b=next(told), marked=name in about))
    return tuple(fields), len(names) - len(fields), cautions


def flat(run: Record) -> Iterator[tuple[str, str]]:
    """Every field of a run's specification, data, learning rate and making, as name and text."""
    spec, made, cost = run.spec, run.provenance, run.cost
    yield "backbone", lineage(run.backbone)
    for name in spec.__struct_fields__:
        if name not in _ELSEWHERE:
            yield name, _text(getattr(spec, name))
    yield from ((name, _text(value)) for name, value in spec.options.flat().items())
    if run.lr is not None:
        yield "lr", number(run.lr)
    yield "lr chosen", _choice(run)
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
    yield "git", (made.git or "–")[:12]
    yield "python", made.python
    yield "platform", made.platform
    yield from ((f"package {name}", version) for name, version in sorted(made.packages.items()))


def _values(side: Side, tasks: Sequence[Task]) -> Values:
    found: Values = {task: {} for task in tasks or [""]}
    for run in side.records:
        task = run.spec.task if tasks else ""
        for name, value in flat(run) if task in found else ():
            if task or not name.startswith(("data ", "training examples")):
                found[task].setdefault(name, set()).add(value)
    return found


def _told(values: Values, name: str, tasks: Sequence[Task]) -> tuple[str, ...]:
    having: dict[str, list[Task]] = {}
    for task in tasks:
        for value in values[task].get(name, ()):
            having.setdefault(value, []).append(task)

    def words(value: str) -> str:
        if len(having[value]) == len(values):
            return value
        return f"{value} ({', '.join(map(short, having[value]))})"

    return tuple(words(value) for value in sorted(having, key=lambda v: (len(v), v)))


def _cautions(a: Side, b: Side, mine: Values, theirs: Values) -> Iterator[Caution]:
    def apart(*names: str) -> list[str]:
        return [n for n in names if any(mine[t].get(n, set()) != theirs[t].get(n, set()) for t in mine)]

    def both(name: str) -> str:
        return "; ".join(
            f"{side.name} {some(_told(values, name, [*mine])) or '–'}" for side, values in ((a, mine), (b, theirs))
        )

    for code, names, words in (
        ("backbone", ("backbone", "weights"), "they start from other backbones or weights, which the scores show too"),
        ("steps", ("steps done", "max_steps", "epochs"), "they did not train equally long"),
        ("batch", ("batch_size", "examples per step"), "their batches differ"),
        ("examples", ("train_samples", "training examples"), "they trained on other numbers of examples"),
        ("precision", ("precision",), "they computed in other precision"),
    ):
        if found := apart(*names):
            yield Caution(code, f"{words} ({found[0]}: {both(found[0])})", tuple(found))
    if found := apart("data hash", "data version"):
        other = [t for t in mine if any(mine[t].get(n) != theirs[t].get(n) for n in found)]
        text = f"the data of {some(list(map(short, other)))} differ: no difference of scores is computed there"
        yield Caution("data", text, (*found, *apart("data kind", "data revision")))
    yield from _selection(a, b, apart("lr chosen"))
    yield from _mixed(((a, mine), (b, theirs)))
    for side in (a, b):
        states = Counter(run.state for run in side.records if run.state != "done")
        if states:
            said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            yield Caution("failures", f"{said} of {side.name}'s {len(side.records)} runs: its scores are of the others")


def _selection(a: Side, b: Side, fields: Sequence[str]) -> Iterator[Caution]:
    if not fields:
        return

    def kinds(side: Side, of: Callable[[Record], Any]) -> set[Any]:
        return {of(run) for run in side.records}

    def words(of: Callable[[Record], Any]) -> str:
        return "; ".join(f"{side.name} {some(sorted(map(str, kinds(side, of))))}" for side in (a, b))

    tries: list[tuple[str, Callable[[Record], Any]]] = [
        ("the learning rate of one was selected, of the other given", _way),
        ("their learning rates were selected by other numbers of trials", _trials),
        ("their learning rates were selected on other tasks", _where),
    ]
    for text, of in tries:
        if kinds(a, of) != kinds(b, of):
            yield Caution("selection", f"{text} ({words(of)})", tuple(fields))
            return


def _mixed(sides: Iterable[tuple[Side, Values]]) -> Iterator[Caution]:
    """Sides whose runs of one task are not of one configuration."""
    for side, values in sides:
        several = {n: v for fields in values.values() for n, v in fields.items() if len(v) > 1 and _decides(n)}
        if several:
            told = [f"{name} {some(sorted(several[name]))}" for name in several]
            text = f"{side.name} mixes configurations ({'; '.join(told[:3])}): its score is a mean over them"
            yield Caution("mixed", text, tuple(several))


def _decides(name: str) -> bool:
    return not (name.startswith(_MADE) and name != "lr chosen") and name not in ("steps done", "examples per step")


def some(texts: Sequence[str]) -> str:
    """The first of them, and how many there are."""
    return ", ".join(texts[:_SHOWN]) + (f" … ({len(texts)} in all)" if len(texts) > _SHOWN else "")


def _way(run: Record) -> str:
    return "selected" if run.spec.lr is None else "given"


def _trials(run: Record) -> int:
    return len(run.selection.trials if run.selection else run.spec.select)


def _where(run: Record) -> str:
    return run.spec.select_on or "the task itself"


def _choice(run: Record) -> str:
    if _way(run) == "given":
        return "given"
    return f"selected from {', '.join(map(number, run.spec.select))} on {_where(run)}"


def _text(value: Option) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, float) else str(value)
