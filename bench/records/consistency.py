"""Checks of a record against itself: fields that contradict each other, and ids that do not follow from its content."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, cast

import msgspec

from bench.core.text import HIDDEN
from bench.records.course import primary_names
from bench.records.fields import DEEPEST, Scores
from bench.records.results import LayerRank, Metrics
from bench.records.schema import ParentRun, Record
from bench.records.spec import PROTOCOL, ids

_BOUNDS = {
    "accuracy": (0, 1),
    "balanced_accuracy": (0, 1),
    "f1": (0, 1),
    "macro_f1": (0, 1),
    "micro_f1": (0, 1),
    "map": (0, 1),
    "matthews": (-1, 1),
    "pearson": (-1, 1),
    "spearman": (-1, 1),
    "mse": (0, math.inf),
    "relative_error": (0, math.inf),
}
"""Lowest and highest value of each metric of `bench.api.metrics`."""
_ROUNDING = 1e-6
"""What float32 may add to a metric or, relatively, to a rank."""


def contradictions(record: Record) -> Iterator[str]:
    """What is wrong with a record whose fields have the right types, each beginning with the field's name."""
    if record.metrics:
        yield from _metrics(record, record.metrics)
    yield from _evaluations(record)
    if params := record.params:
        if params.trainable > params.total:
            yield f"params.trainable: {params.trainable}, more than the {params.total} of params.total"
        if params.head > params.trainable:
            yield f"params.head: {params.head}, more than the {params.trainable} of params.trainable"
    for index, rank in enumerate(record.ranks):
        for reason in _rank(rank):
            yield f"ranks[{index}].{reason}"
    for index, series in enumerate(record.spectra.series if record.spectra else ()):
        if len(series.steps) != len(series.effective):
            yield f"spectra.series[{index}].effective: {len(series.effective)} values for {len(series.steps)} steps"
    yield from _truncation(record)
    if _ancestors(record.backbone.parent) > DEEPEST:
        yield f"backbone.parent: nested deeper than {DEEPEST} levels"
    if record.task.labels and len(record.task.labels) != record.task.num_classes:
        yield f"task.labels: {len(record.task.labels)} names, but task.num_classes is {record.task.num_classes}"
    if record.task.name != record.spec.task:
        yield f"task.name: {record.task.name}, but spec.task is {record.spec.task}"
    if record.state == "done" and record.spec.lr is not None and record.lr != record.spec.lr:
        yield f"lr: {record.lr}, but spec.lr is {record.spec.lr}"
    if record.selection and record.lr is not None and record.lr != record.selection.chosen:
        yield f"lr: {record.lr}, but selection.chosen is {record.selection.chosen}"
    yield from _selected(record)
    yield from _ids(record)


def _truncation(record: Record) -> Iterator[str]:
    """The curve must end with the whole, and the rank needed follow from it."""
    cut, primary = record.truncation, record.metrics.primary if record.metrics else None
    if not cut:
        return
    tried = [point.k for point in cut.points]
    if len(tried) < 2 or tried != sorted({*tried}):
        yield f"truncation.points: k = {tried}, which are not two or more in ascending order"
        return
    if cut.points[-1].value != cut.whole:
        yield f"truncation.points: the last is {cut.points[-1].value}, but truncation.whole is {cut.whole}"
    if primary and (cut.split, cut.n <= primary.n) != (primary.split, True):
        yield f"truncation.n: {cut.n} of {cut.split}, but metrics.primary has {primary.n} of {primary.split}"
    if primary:
        sign = 1 if primary.higher_is_better else -1
        enough = [point.k for point in cut.points if sign * (cut.whole - point.value) <= cut.se]
        if cut.rank_needed != enough[0] and (cut.rank_needed is not None or len(enough) > 1):
            yield f"truncation.rank_needed: {cut.rank_needed}, but {enough[0]} is within truncation.se"


def _selected(record: Record) -> Iterator[str]:
    """What was selected must be in the options, and be one of the candidates."""
    if record.state == "done" and record.spec.space and not record.selection:
        yield "selection: null, but the options of spec.space were selected"
    options, chosen = record.spec.options.flat(), record.selection.options if record.selection else {}
    for name in chosen.keys() - record.spec.space.keys():
        yield f"selection.options.{name}: spec.space has no such option"
    for name, candidates in record.spec.space.items() if record.selection else ():
        if name not in chosen:
            yield f"selection.options: {name} is missing, which spec.space has"
        elif _json(chosen[name]) not in map(_json, candidates):
            yield f"selection.options.{name}: {chosen[name]}, which is no candidate of spec.space"
        elif _json(chosen[name]) != _json(options.get(name)):
            yield f"spec.options.{name}: {options.get(name)}, but selection.options has {chosen[name]}"


def _json(value: object) -> str:
    """JSON of a value, in which 1, 1.0 and true differ."""
    return msgspec.json.encode(value).decode()


def _metrics(record: Record, metrics: Metrics) -> Iterator[str]:
    primary = metrics.primary
    yield from _bounds("metrics.all", metrics.all)
    scores = metrics.all.get(primary.split, {})
    names = primary_names(primary.name, scores)
    if absent := [name for name in names if name not in scores]:
        yield f"metrics.primary.name: metrics.all.{primary.split} has no {absent[0]}"
    elif not math.isclose(primary.value, mean := sum(scores[name] for name in names) / len(names), rel_tol=1e-9):
        yield f"metrics.primary.value: {primary.value}, but metrics.all.{primary.split} has {mean}"
    counts = record.source.evaluation_examples
    if primary.n != counts.get(primary.split):
        yield f"metrics.primary.n: {primary.n}, but source.evaluation_examples has {counts.get(primary.split, 'none')}"


def _bounds(field: str, scores: Scores) -> Iterator[str]:
    for split, values in scores.items():
        for name, value in values.items():
            low, high = _BOUNDS.get(name, (-math.inf, math.inf))
            if not low - _ROUNDING <= value <= high + _ROUNDING:
                yield f"{field}.{split}.{name}: {value}, outside of {low} to {high}"


def _evaluations(record: Record) -> Iterator[str]:
    """The steps of the evaluations must rise; their scores are bounded as the last ones are."""
    before = 0
    for index, row in enumerate(record.evaluations):
        if row.step <= before:
            yield f"evaluations[{index}].step: {row.step}, after step {before}"
        before = row.step
        yield from _bounds(f"evaluations[{index}].metrics", row.metrics)
    if record.cost and before > record.cost.steps:
        yield f"evaluations[{len(record.evaluations) - 1}].step: {before}, but cost.steps is {record.cost.steps}"


def _rank(rank: LayerRank) -> Iterator[str]:
    if rank.nominal > min(rank.shape):
        yield f"nominal: {rank.nominal}, more than a matrix of {rank.shape[0]}×{rank.shape[1]} has"
    for name in ("stable", "effective", "energy90"):
        value: float = getattr(rank, name)
        if value > rank.nominal * (1 + _ROUNDING):
            yield f"{name}: {value:g}, more than the nominal rank {rank.nominal}"


def _ancestors(parent: ParentRun | None) -> int:
    count = 0
    while parent:
        count, parent = count + 1, parent.parent
    return count


def _ids(record: Record) -> Iterator[str]:
    found = record.run_id, record.group_id
    data, weights = record.source.data_hash, record.backbone.weights_hash
    if any(found == ids(spec, data, weights) for spec in _spellings(record)):
        return
    if not any(HIDDEN in str(value) for value in record.spec.options.flat().values()):  # the secret itself was hashed
        yield (
            "run_id: it does not follow from specification, data and weights: a field was changed, or a version with "
            f"another protocol than {PROTOCOL} wrote it"
        )


def _spellings(record: Record) -> Iterator[dict[str, Any]]:
    """The specification as it may have been hashed: a whole number in `lr`, `select` or `epochs` may have been an int.

    The structure has it as a float, so what a caller in Python gave is not known.
    """
    spec, names = cast("dict[str, Any]", msgspec.to_builtins(record.spec)), ("lr", "epochs", "select")
    yield spec
    for values in product(*((spec[name], _whole(spec[name])) for name in names)):
        yield {**spec, **dict(zip(names, values, strict=True))}


def _whole(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_whole(item) for item in cast("tuple[object, ...]", value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value
