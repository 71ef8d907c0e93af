"""What may be compared with what: the table, the column and the row that a run belongs to, and their names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from bench.records.record import Record
from bench.records.schema import BackboneInfo, Option, ParentRun, StoredSpec
from bench.records.spec import NOT_IDENTITY

_COMPARED = {"task", "seed", "holdout", "backbone", "max_steps", "epochs", "batch_size", "train_samples", "precision"}
"""Fields of a specification that are no setting of a row: its table, its columns or its seeds carry them."""
_OFF: dict[str, tuple[str, Option]] = {"allocation": ("policy", "uniform"), "penalty": ("nuclear", 0)}
"""Namespaces with the option and value that switch them off: their other options change nothing then."""

Source = tuple[str, str, str]
"""Suite, kind of source, revision."""


class TableKey(NamedTuple):
    """What all rows of a table have in common, in words; `weights` is the hash of the pretrained weights, or names the
    runs that trained them, which may differ in the seed alone.
    """

    suite: str
    backbone: str
    source: str
    budget: str
    weights: str


class ColumnKey(NamedTuple):
    """A task on one version of its data: scores of different versions are never in one column."""

    task: str
    version: str
    data_hash: str


Seed = tuple[int, str]
RowKey = tuple[str, tuple[tuple[str, str], ...]]
"""Method and all its settings, as `(name, value)`."""


def table_key(run: Record, sources: Mapping[Source, str], own: Collection[str] = ()) -> TableKey:
    """The table of a run, given `source_names` and `own_metrics` of all runs."""
    backbone, method = run.backbone, run.spec.method
    size, parent = backbone.parameters, backbone.parent
    name = lineage(backbone) + (f" ({size / 1e6:.{1 if size >= 1e6 else 2}f} M)" if size is not None else "")
    suite = f"{source(run)[0]} · {method}" if method in own else source(run)[0]
    weights = parent.group_id if parent else backbone.weights_hash
    return TableKey(suite, name, sources[source(run)], _budget(run.spec), weights)


def lineage(backbone: BackboneInfo) -> str:
    """Its name, or of one that runs trained: `vit + mae on mnist`."""
    return _trained_by(backbone.parent) if backbone.parent else backbone.name


def _trained_by(run: ParentRun) -> str:
    before = _trained_by(run.parent) if run.parent else run.backbone
    return f"{before} + {run.method} on {run.task}"


def seed_key(run: Record) -> Seed:
    """What tells repetitions of a configuration apart: its seed, and the weights it started from."""
    return run.spec.seed, run.backbone.weights_hash


def own_metrics(runs: Iterable[Record]) -> set[str]:
    """Methods that are scored by a metric of their own, such as mlm: no other method belongs into their tables."""
    return {r.spec.method for r in runs if r.metrics and r.metrics.primary.of == "method"}


def column_key(run: Record) -> ColumnKey:
    """The column of a run within its table."""
    return ColumnKey(run.spec.task, str(run.task.version), run.source.data_hash)


def row_key(run: Record) -> RowKey:
    """The row of a run within its table: the specification without what table, column and seed say.

    A learning rate that was selected is the same setting whatever was chosen.
    """
    spec = run.spec
    names = {*spec.__struct_fields__} - _COMPARED - NOT_IDENTITY - {"method", "options"}
    found = {name: _text(getattr(spec, name)) for name in names}
    for space, options in spec.options.namespaces().items():
        switch, off = _OFF.get(space, ("", None))
        shown = {switch: off} if switch and options.get(switch) == off else options
        found |= {f"{space}.{key}": _text(value) for key, value in shown.items() if space != "runtime"}
    found |= {"lr": "selected"} if spec.lr is None else {}
    return spec.method, tuple(sorted(found.items()))


def labels(keys: Iterable[RowKey]) -> dict[RowKey, str]:
    """The method of each row, with the settings in which rows of this method differ: `lora (rank=16)`."""
    keys = list(keys)
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    having = Counter((method, name) for method, settings in keys for name, _ in settings)
    rows = Counter(method for method, _ in keys)
    for method, settings in keys:
        for name, value in settings:
            values[method, name].add(value)
    several = {which for which, found in values.items() if len(found) > 1}
    found = {key: _label(key, several) for key in keys}
    alike = Counter(found.values())
    # a setting that another row lacks, because its option is newer, is shown only where it tells rows apart
    partial = several | {which for which, count in having.items() if count < rows[which[0]]}
    return {key: text if alike[text] == 1 else _label(key, partial) for key, text in found.items()}


def _label(key: RowKey, shown: Collection[tuple[str, str]]) -> str:
    method, settings = key
    parts = [f"{name.removeprefix('method.')}={value}" for name, value in settings if (method, name) in shown]
    return f"{method} ({', '.join(parts)})" if parts else method


def short(task: str) -> str:
    """A task's name without its suite."""
    return task.partition("/")[2] or task


def source(run: Record) -> Source:
    """Where a run's data came from."""
    return run.spec.task.partition("/")[0], run.source.kind, run.source.revision


def source_names(runs: Iterable[Record]) -> dict[Source, str]:
    """Every source in words, equal for those that may share a table.

    Directories and files may, as long as no task has other data in another of them: the name of a folder says little,
    and each task of a suite may have a folder of its own.
    """
    content: dict[Source, dict[str, set[ColumnKey]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        content[source(run)][run.spec.task].add(column_key(run))
    shared: list[list[Source]] = []
    for one in sorted(content):
        fits = (group for group in shared if all(_may_share(content, one, other) for other in group))
        group = next(fits, None)
        if group is None:
            shared.append([one])
        else:
            group.append(one)
    return {one: f"{one[1]} data ({', '.join(s[2] for s in group)})" for group in shared for one in group}


def number(value: float) -> str:
    """A setting as people type it, with all its digits: `1e-3`, `1.5e-4`, `0.5`, `2`."""
    decimal = Decimal(repr(value)).normalize()
    return f"{decimal:f}" if value == 0 or 0.05 <= abs(value) < 1e6 else f"{decimal:e}"


def _may_share(content: Mapping[Source, Mapping[str, set[ColumnKey]]], one: Source, other: Source) -> bool:
    both = content[one].keys() & content[other].keys()
    same_data = all(content[one][task] == content[other][task] for task in both)
    return one[1] in ("directory", "file") and one[:2] == other[:2] and same_data


def _budget(spec: StoredSpec) -> str:
    parts = [f"{spec.max_steps} steps"] if spec.max_steps is not None else []
    parts += [f"{number(spec.epochs)} epochs"] if spec.epochs is not None else []
    parts += [f"batch {spec.batch_size}"]
    parts += [f"{spec.train_samples} training examples"] if spec.train_samples is not None else []
    parts += [spec.precision] if spec.precision != "32-true" else []
    return ", ".join(parts)


def _text(value: Option | Sequence[float]) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, float) else str(value)
