"""Keys and names of the table, the column and the row that a run belongs to: only runs of one table are comparable."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from bench.records.fields import Option
from bench.records.record import DoneRecord, Record, is_done
from bench.records.schema import BackboneInfo, Options, ParentRun, StoredSpec
from bench.records.spec import NOT_IDENTITY

_NOT_SETTINGS = {
    *("task", "seed", "holdout", "backbone"),
    *("max_steps", "epochs", "batch_size", "train_samples", "precision", "space", "trials", "select_on"),
}
"""Fields of a specification that are no settings of a row: the table, the column or the seed of a run has them, or what
they mean depends on others."""
EACH = "each task"
"""Setting `select_on` of a row whose runs select on their own task."""
_SETTINGS = {*StoredSpec.__struct_fields__} - _NOT_SETTINGS - NOT_IDENTITY - {"method", "options"}
_SWITCHES: dict[str, tuple[str, Option]] = {"allocation": ("policy", "uniform"), "penalty": ("nuclear", 0)}
"""Namespace → the option and value that switch it off; its other options have no effect then."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Source = tuple[str, str, str]
"""Suite, kind of source, revision."""


class TableKey(NamedTuple):
    """What all rows of a table have in common. `weights`: their hash, or the group id of the runs that trained them."""

    suite: str
    backbone: str
    source: str
    budget: str
    weights: str


class DataKey(NamedTuple):
    """A task on one version of its data."""

    task: str
    version: str
    data_hash: str


class ColumnKey(NamedTuple):
    """What was measured on which data. Scores that differ in any of it are in different columns."""

    data: DataKey
    metric: str
    split: str
    higher_is_better: bool
    n: int


Seed = tuple[int, str]


class RowKey(NamedTuple):
    """A method and all its settings, as `(name, value)`."""

    method: str
    settings: tuple[tuple[str, str], ...]


def group_by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by key; groups and items keep their order."""
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def by_table(runs: Sequence[Record]) -> dict[TableKey, list[Record]]:
    """The runs of each table. Methods that are scored by a metric of their own, such as mlm, have their own tables."""
    own_metric = {run.spec.method for run in runs if _has_own_metric(run)}
    sources = _data_source_names(runs)

    def key(run: Record) -> TableKey:
        backbone, method, source = run.backbone, run.spec.method, _data_source(run)
        own = _has_own_metric(run) if is_done(run) else method in own_metric
        suite = f"{source[0]} · {method}" if own else source[0]
        size, parent = backbone.parameters, backbone.parent
        millions = "" if size is None else f" ({size / 1e6:.{1 if size >= 1e6 else 2}f} M)"
        weights = parent.group_id if parent else backbone.weights_hash
        return TableKey(suite, backbone_name(backbone) + millions, sources[source], _budget(run.spec), weights)

    return group_by(runs, key)


def _has_own_metric(run: Record) -> bool:
    return is_done(run) and run.metrics.primary.of == "method"


def backbone_name(backbone: BackboneInfo) -> str:
    """Name of a backbone; if a run trained it, with how: `vit + mae on mnist`."""
    return _trained_by(backbone.parent) if backbone.parent else backbone.name


def _trained_by(run: ParentRun) -> str:
    start = _trained_by(run.parent) if run.parent else run.backbone
    return f"{start} + {run.method} on {run.task}"


def seed_key(run: Record) -> Seed:
    """Key of a repetition of a configuration: its seed, and the hash of the weights it started from."""
    return run.spec.seed, run.backbone.weights_hash


def data_key(run: Record) -> DataKey:
    """Task and data of a run."""
    return DataKey(run.spec.task, str(run.task.version), run.source.data_hash)


def column_keys(runs: Iterable[Record]) -> Callable[[Record], ColumnKey]:
    """The function that gives the column of each of the `runs` of a table.

    A run without a score stands in the first column of its data.
    """
    scored: dict[DataKey, list[ColumnKey]] = defaultdict(list)
    for run in filter(is_done, runs):
        scored[data_key(run)].append(_scored_key(run))

    def key(run: Record) -> ColumnKey:
        if is_done(run):
            return _scored_key(run)
        data = data_key(run)
        return min(scored.get(data, [ColumnKey(data, "", "", True, 0)]))

    return key


def _scored_key(run: DoneRecord) -> ColumnKey:
    primary = run.metrics.primary
    return ColumnKey(data_key(run), primary.name, primary.split, primary.higher_is_better, primary.n)


def by_row(runs: Iterable[Record]) -> list[tuple[str, RowKey, list[Record]]]:
    known: dict[int, dict[str, str]] = {}

    def options(run: Record) -> dict[str, str]:
        """Of each object once: records that come from an index share their options."""
        key = id(run.spec.options)
        if key not in known:
            known[key] = _option_settings(run.spec.options)
        return known[key]

    runs = [*runs]
    keys = {id(run): _row_key(run.spec, options(run)) for run in runs}
    deciding = {(keys[id(run)], on) for run in runs if (on := run.spec.select_on) not in (None, run.spec.task)}

    def key(run: Record) -> RowKey:
        """With the task that selects for all; a task that selects for itself alone is the same setting on each."""
        method, settings = keys[id(run)]
        on = run.spec.select_on
        value = on if on is None or (keys[id(run)], on) in deciding else EACH
        return RowKey(method, tuple(sorted((*settings, ("select_on", str(value))))))

    groups = group_by(runs, key)
    labels = _row_labels({row: _chosen(groups[row]) for row in sorted(groups)})
    return [(label, row, groups[row]) for row, label in labels.items()]


def _chosen(runs: Iterable[Record]) -> dict[str, str]:
    """The options that were selected for the runs of a row: `4 or 8 selected`."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in run.selection.options.items() if run.selection else ():
            values.setdefault(name, {})[format_value(value)] = None
    return {name: f"{' or '.join(sorted(found))} selected" for name, found in values.items()}


def _row_key(spec: StoredSpec, options: dict[str, str]) -> RowKey:
    """The settings of a run but `select_on`; all selected values of a rate, or of an option, are the same setting."""
    settings = {name: format_value(getattr(spec, name)) for name in _SETTINGS} | options
    settings |= {"lr": "selected"} if spec.lr is None else {}
    settings |= {name: f"one of {format_value(values)}" for name, values in spec.space.items()}
    settings |= {"trials": str(spec.trials)} if spec.trials else {}
    return RowKey(spec.method, tuple(sorted(settings.items())))


def _option_settings(options: Options) -> dict[str, str]:
    settings: dict[str, str] = {}
    for space, values in options.namespaces().items():
        switch, off = _SWITCHES.get(space, ("", None))
        shown = {switch: off} if switch and values.get(switch) == off else values
        settings |= {f"{space}.{key}": format_value(value) for key, value in shown.items() if space != "runtime"}
    return settings


def _row_labels(keys: Mapping[RowKey, Mapping[str, str]]) -> dict[RowKey, str]:
    """The method of each row, with the settings in which rows of this method differ: `lora (rank=16)`.

    Args:
        keys: those of the rows, each with the options that were selected.
    """
    rows = Counter(method for method, _ in keys)
    values: dict[tuple[str, str], list[str]] = defaultdict(list)
    for method, settings in keys:
        for name, value in settings:
            values[method, name].append(value)
    varying = {setting for setting, present in values.items() if len(set(present)) > 1}
    labels = {key: _label(key, varying, chosen) for key, chosen in keys.items()}
    uses = Counter(labels.values())
    # older records lack newer options; such a setting is shown only where labels would be equal without it
    partial = varying | {setting for setting, present in values.items() if len(present) < rows[setting[0]]}
    return {key: text if uses[text] == 1 else _label(key, partial) for key, text in labels.items()}


def _label(key: RowKey, shown: Collection[tuple[str, str]], chosen: Mapping[str, str] = MappingProxyType({})) -> str:
    method, settings = key
    parts = [
        f"{name.removeprefix('method.')}={chosen.get(name, value)}"
        for name, value in settings
        if (method, name) in shown or name in chosen
    ]
    return f"{method} ({', '.join(parts)})" if parts else method


def short_task(task: str) -> str:
    """Name of a task without its suite."""
    return task.partition("/")[2] or task


def _data_source(run: Record) -> Source:
    return run.spec.task.partition("/")[0], run.source.kind, run.source.revision


def _data_source_names(runs: Iterable[Record]) -> dict[Source, str]:
    """Name of every source; sources that may share a table have the same name.

    Directories and files of one suite may share a table unless they hold different data for the same task, because each
    task of a suite may have a folder of its own.
    """
    content: dict[Source, dict[str, set[DataKey]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        content[_data_source(run)][run.spec.task].add(data_key(run))

    def may_share(source: Source, other: Source) -> bool:
        both = content[source].keys() & content[other].keys()
        same_data = all(content[source][task] == content[other][task] for task in both)
        return source[1] in ("directory", "file") and source[:2] == other[:2] and same_data

    shared: list[list[Source]] = []
    for source in sorted(content):
        fits = (group for group in shared if all(may_share(source, other) for other in group))
        if group := next(fits, None):
            group.append(source)
        else:
            shared.append([source])
    names = {group[0]: ", ".join(revision for *_, revision in group) for group in shared}
    return {source: f"{source[1]} data ({names[group[0]]})" for group in shared for source in group}


def format_number(value: float) -> str:
    """A number as people type it, with all its digits: `1e-3`, `1.5e-4`, `0.5`, `2`."""
    decimal = Decimal(repr(value)).normalize()
    return f"{decimal:f}" if value == 0 or 0.05 <= abs(value) < 1e6 else f"{decimal:e}"


def _budget(spec: StoredSpec) -> str:
    parts = [f"{spec.max_steps} steps"] if spec.max_steps is not None else []
    parts += [f"{format_number(spec.epochs)} epochs"] if spec.epochs is not None else []
    parts += [f"batch {spec.batch_size}"]
    parts += [f"{spec.train_samples} training examples"] if spec.train_samples is not None else []
    parts += [spec.precision] if spec.precision != "32-true" else []
    return ", ".join(parts)


def format_value(value: Option | Sequence[Option]) -> str:
    """An option as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(format_value(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return format_number(value) if isinstance(value, float) else str(value)
