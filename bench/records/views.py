"""Parts of a record, packed small for the index of a large folder: a line of a list, and what tables need."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, structs

from bench.records.fields import SCHEMA, State
from bench.records.record import Record
from bench.records.results import Cost, Evaluation, LayerRank, Metrics, Parameters, Selection, Truncation
from bench.records.schema import BackboneInfo, Options, Provenance, RunError, SourceInfo, StoredSpec, TaskInfo

NOT_IN_TABLES = frozenset({"curve", "spectra", "report", "sweep", "tracking", "provenance", "files", "digest"})
"""Fields of a record that are empty in one that comes from its slim form; of `provenance` the time is kept."""

_ENCODER = msgspec.msgpack.Encoder()
_PARAMETERS, _SELECTION, _ERROR, _WARNINGS = Parameters | None, Selection | None, RunError | None, tuple[str, ...]
_NO_PACKAGES: dict[str, str] = {}
_NO_OPTIONS = msgspec.convert({name: {} for name in Options.__struct_fields__}, Options)


class Line(Struct, frozen=True, array_like=True, gc=False):
    """What `bench list runs` shows of a run; `metric` is None where it has no score."""

    run_id: str
    state: State
    method: str
    task: str
    backbone: str
    seed: int
    trial: bool
    lr: float | None
    metric: str | None
    value: float
    higher_is_better: bool


def line(record: Record) -> Line:
    spec, primary = record.spec, record.metrics.primary if record.metrics else None
    return Line(
        run_id=record.run_id,
        state=record.state,
        method=spec.method,
        task=spec.task,
        backbone=record.backbone.name,
        seed=spec.seed,
        trial=bool(spec.holdout),
        lr=record.lr,
        metric=primary.name if primary else None,
        value=primary.value if primary else 0.0,
        higher_is_better=bool(primary and primary.higher_is_better),
    )


class Layers(Struct, frozen=True, array_like=True):
    """What the ranks of many runs have in common: for each layer its name, shape, nominal rank, and how it was seen."""

    layers: tuple[tuple[str, tuple[int, int], int, Literal["svd", "gram", "factors"]], ...]


class Slim(Struct, frozen=True, array_like=True):
    """A record without `NOT_IN_TABLES`. What many runs have in common is a `Raw`, so that it is decoded only once."""

    run_id: str
    group_id: str
    state: State
    seed: int
    spec_lr: float | None
    lr: float | None
    created: str
    metrics: Metrics | None
    cost: Cost | None
    evaluations: tuple[Evaluation, ...]
    ranks: tuple[tuple[float, float, int, float], ...]
    layers: Raw
    spec: Raw
    options: Raw
    task: Raw
    backbone: Raw
    source: Raw
    params: Raw
    selection: Raw
    error: Raw
    warnings: Raw
    truncation: Truncation | None


def slim(record: Record) -> Slim:
    spec, ranks = record.spec, record.ranks
    return Slim(
        run_id=record.run_id,
        group_id=record.group_id,
        state=record.state,
        seed=spec.seed,
        spec_lr=spec.lr,
        lr=record.lr,
        created=record.provenance.created,
        metrics=record.metrics,
        cost=record.cost,
        evaluations=record.evaluations,
        ranks=tuple((rank.stable, rank.effective, rank.energy90, rank.norm) for rank in ranks),
        layers=_raw(Layers(tuple((rank.layer, rank.shape, rank.nominal, rank.how) for rank in ranks))),
        spec=_raw(structs.replace(spec, seed=0, lr=None, options=_NO_OPTIONS)),
        options=_raw(spec.options),
        task=_raw(record.task),
        backbone=_raw(record.backbone),
        source=_raw(record.source),
        params=_raw(record.params),
        selection=_raw(record.selection),
        error=_raw(record.error),
        warnings=_raw(record.warnings),
        truncation=record.truncation,
    )


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


class Restorer:
    """Makes records of their slim forms. What these have in common becomes one object, and is decoded once."""

    def __init__(self) -> None:
        self._decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
        self._seen: dict[tuple[Any, bytes], Any] = {}

    def restore(self, slim: Slim) -> Record:
        """The record, without what `NOT_IN_TABLES` says; raises msgspec.MsgspecError if it is none."""
        common = self._common
        spec = structs.replace(
            common(StoredSpec, slim.spec), seed=slim.seed, lr=slim.spec_lr, options=common(Options, slim.options)
        )
        ranks = zip(common(Layers, slim.layers).layers, slim.ranks, strict=True)
        return Record(
            schema=SCHEMA,
            run_id=slim.run_id,
            group_id=slim.group_id,
            state=slim.state,
            error=common(_ERROR, slim.error),
            warnings=common(_WARNINGS, slim.warnings),
            spec=spec,
            lr=slim.lr,
            task=common(TaskInfo, slim.task),
            backbone=common(BackboneInfo, slim.backbone),
            source=common(SourceInfo, slim.source),
            metrics=slim.metrics,
            params=common(_PARAMETERS, slim.params),
            selection=common(_SELECTION, slim.selection),
            ranks=tuple(
                LayerRank(
                    layer=name,
                    shape=shape,
                    nominal=nominal,
                    how=how,
                    stable=stable,
                    effective=effective,
                    energy90=energy90,
                    norm=norm,
                )
                for (name, shape, nominal, how), (stable, effective, energy90, norm) in ranks
            ),
            cost=slim.cost,
            curve=(),
            provenance=Provenance(
                created=slim.created, command=(), git=None, packages=_NO_PACKAGES, python="", platform=""
            ),
            tracking=None,
            evaluations=slim.evaluations,
            truncation=slim.truncation,
        )

    def _common(self, kind: Any, raw: Raw) -> Any:
        key = kind, bytes(raw)
        if key not in self._seen:
            if kind not in self._decoders:
                self._decoders[kind] = msgspec.msgpack.Decoder(kind)
            self._seen[key] = self._decoders[kind].decode(raw)
        return self._seen[key]
