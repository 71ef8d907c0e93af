"""What a record holds, as typed, frozen structures; the JSON schema and the tables of docs/record.md come from them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeGuard, cast

import msgspec
from msgspec import Meta

from bench.core.errors import BenchError
from bench.records.data import SourceKind

SCHEMA = 2
"""Version of the schema that this code writes and reads."""
LARGEST = 2**63 - 1
"""Larger integers are no count of anything, and other JSON readers do not hold them."""

DEEPEST = 64
"""Levels of nesting in a record: objects, lists, and runs that trained a backbone."""

State = Literal["running", "done", "failed", "oom", "diverged", "cancelled", "preempted"]
Edge = Literal["", "smallest", "largest"]
MirrorKind = Literal["wandb", "tensorboard", "csv", "mlflow"]
Quantity = Literal["updates", "weights", "gradients", "steps", "activations"]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Real = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
RunId = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Option = str | Whole | float | bool | None
Space = dict[str, Option]
"""Options of a namespace."""
Scores = dict[str, dict[str, float]]
"""Split → metric → value."""
FreeForm = dict[str, Any]
"""JSON values of which only the writer knows the names."""


def about(text: str) -> Meta:
    return Meta(description=text)


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Base of all parts. Only a field with a default may be absent in a file, and is where it has that value."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as a parser reads them from a file: lists, no tuples."""
        return json.loads(json.dumps(msgspec.to_builtins(self)))


class RunError(Part, frozen=True, kw_only=True):
    """Why a run failed."""

    what: Annotated[str, about("what went wrong")]
    known: Annotated[str, about("what is known about it")]
    todo: Annotated[str, about("what to do next")]

    @classmethod
    def of(cls, problem: BenchError) -> RunError:
        return cls(what=problem.what, known=problem.known, todo=problem.todo)


class Options(Part, frozen=True, kw_only=True):
    """Every option, with its default filled in, by the namespaces of `--set`."""

    method: Annotated[Space, about("the method's own options")]
    task: Annotated[Space, about("how examples become batches; without options that say only what the examples are")]
    backbone: Annotated[Space, about("options of the backbone")]
    head: Annotated[Space, about("options of the head")]
    optim: Annotated[Space, about("options of the optimiser and its schedule")]
    penalty: Annotated[Space, about("what is added to the loss to keep rank low")]
    allocation: Annotated[Space, about("how rank is shared between layers")]
    spectra: Annotated[Space, about("whose singular values are taken during training")]
    runtime: Annotated[Space, about("how the run was executed; not part of its identity")]

    def namespaces(self) -> dict[str, Space]:
        return msgspec.structs.asdict(self)

    def flat(self) -> dict[str, Option]:
        """Every option by its name in `--set`: `method.rank`."""
        return {f"{space}.{key}": value for space, given in self.namespaces().items() for key, value in given.items()}


class StoredSpec(Part, frozen=True, kw_only=True):
    """The RunSpec as a record keeps it; `RunSpec.from_json(spec.to_json())` gives it back."""

    method: Annotated[str, about("registry name of the method")]
    task: Annotated[str, about("task, such as glue/rte")]
    backbone: Annotated[str, about("registry name, hub id or directory of the backbone")]
    seed: Annotated[
        Whole, about("seeds a built network, head, adapter, drawn examples, order of batches, augmentation, masks")
    ]
    lr: Annotated[Real | None, about("learning rate asked for; null where it was selected")]
    select: Annotated[
        tuple[Real, ...],
        about("candidate learning rates; with trials the ends of their range; empty where none was selected"),
    ]
    space: Annotated[
        dict[str, tuple[Option, ...]],
        about("options that were selected, each with its candidates (options has what was chosen); absent: none"),
    ] = {}
    trials: Annotated[
        Count, about("trials that optuna's TPE suggests; absent where every combination of the candidates is tried")
    ] = 0
    select_on: Annotated[str | None, about("task whose held-out train split decided; null: this run's own")]
    widen: Annotated[Count, about("most rates tried beyond those of select, while the best one is at their end")]
    holdout: Annotated[Count, about("training examples cut off, by seed, and evaluated on instead of dev; 0: none")]
    max_steps: Annotated[Count | None, about("budget in optimiser steps; null where epochs say it")]
    epochs: Annotated[Real | None, about("budget in passes over train; null where max_steps says it")]
    batch_size: Annotated[Count, about("examples per optimiser step over all devices")]
    train_samples: Annotated[Count | None, about("examples drawn from train; null: all")]
    evaluate: Annotated[
        Annotated[int, Meta(ge=1, le=LARGEST)] | Literal["epoch"] | None,
        about("dev is evaluated after every so many steps, or after each pass over train; null: at the end alone"),
    ]
    precision: Annotated[str, about("Lightning's precision, such as 32-true")]
    accelerator: Annotated[str, about("Lightning's accelerator; not part of the identity")]
    devices: Annotated[Count, about("number of devices; not part of the identity")]
    track: Annotated[str, about("off, wandb, tensorboard, csv or mlflow; not part of the identity")]
    out: Annotated[str, about("folder of the records; not part of the identity")]
    start: Annotated[str | None, about("folder of the starting adapter; the identity has its hash, in options.method")]
    options: Annotated[Options, about("every option with its default filled in, by namespace of --set")]


class TaskInfo(Part, frozen=True, kw_only=True):
    """What was learned."""

    name: Annotated[str, about("task, such as glue/rte")]
    version: Annotated[
        Count | str,
        about("raised whenever the same data would give another score; of a user's own data the hash of its files"),
    ]
    modality: Annotated[str, about("text, image or vector")]
    num_classes: Annotated[Count, about("number of classes; 0 is regression")]
    note: Annotated[str, about("caveat shown beside scores; may be empty")]
    multilabel: Annotated[bool, about("whether an example has any number of the classes; absent where it has one")] = (
        False
    )


class ParentRun(Part, frozen=True, kw_only=True):
    """The run that trained a backbone."""

    run_id: Annotated[RunId, about("its run")]
    group_id: Annotated[RunId, about("its group: the run but for the seed")]
    method: Annotated[str, about("method that trained it")]
    task: Annotated[str, about("task it was trained on")]
    backbone: Annotated[str, about("name of the backbone that the run itself started from")]
    parent: Annotated[ParentRun | None, about("the run that trained that one, and so on; null where none did")]


class BackboneInfo(Part, frozen=True, kw_only=True):
    """What was adapted."""

    name: Annotated[str, about("name of the network")]
    parameters: Annotated[Count | None, about("parameters before adapting, without the head; null until it is built")]
    weights_hash: Annotated[str, about("hash of the pretrained weights; of a built network of its name and options")]
    pooling: Annotated[str, about("how token features become one vector where head.pooling is auto")]
    parent: Annotated[ParentRun | None, about("the run that trained it; absent where none did")] = None
    random: Annotated[bool, about("whether it is built and starts at random; absent where it was trained before")] = (
        False
    )


class SourceInfo(Part, frozen=True, kw_only=True):
    """Where the data came from."""

    kind: Annotated[SourceKind, about("which of the sources answered")]
    revision: Annotated[str, about("hub revision, generator version, folder or file name")]
    data_hash: Annotated[str, about("sha256 of all examples")]
    train_examples: Annotated[Count, about("examples trained on")]
    evaluation_examples: Annotated[dict[str, Count], about("examples of each evaluation split, by name")]
    reading: Annotated[
        FreeForm,
        about("how data was read or made: columns, classes, split, size, mean, files, rows left out; absent for GLUE"),
    ] = {}


class PrimaryMetric(Part, frozen=True, kw_only=True):
    """The one number of the task."""

    name: Annotated[str, about("metric, such as matthews or accuracy+f1 (mean of the two)")]
    value: Annotated[float, about("its value; fractions, not percent")]
    split: Annotated[str, about("split it was measured on")]
    higher_is_better: Annotated[bool, about("direction")]
    n: Annotated[Count, about("examples evaluated")]
    of: Annotated[
        Literal["task", "method"],
        about("method where the metric is the method's own, such as mlm's held-out loss; absent for the task's"),
    ] = "task"


class Metrics(Part, frozen=True, kw_only=True):
    """The scores after the last step, never the best evaluation."""

    primary: Annotated[PrimaryMetric, about("the one number of the task")]
    all: Annotated[Scores, about("every metric of every evaluation split")]
    majority: Annotated[
        dict[str, Share],
        about(
            "share of the largest class in each evaluation split, the accuracy of naming it always; "
            "absent for numbers and where an example has several classes"
        ),
    ] = {}


class Parameters(Part, frozen=True, kw_only=True):
    """Sizes of the model."""

    total: Annotated[Count, about("backbone, adapter and head")]
    trainable: Annotated[Count, about("trained parameters, head included")]
    head: Annotated[Count, about("trained parameters of the head; 0 where it is frozen")]
    stored_bytes: Annotated[Count, about("bytes on disk of what was trained")]


class Trial(Part, frozen=True, kw_only=True):
    """One trial of a selection."""

    lr: Annotated[Real, about("learning rate tried")]
    options: Annotated[Space, about("options tried, by name; absent where the learning rate alone was selected")] = {}
    value: Annotated[float | None, about("score on the held-out split; null where the trial failed")]
    run_id: Annotated[RunId | None, about("run of the trial")]
    state: Annotated[str, about("state of the trial")]


class Selection(Part, frozen=True, kw_only=True):
    """How learning rate and options were chosen."""

    trials: Annotated[
        tuple[Trial, ...], about("each trial once: by learning rate, ascending, or as optuna suggested them")
    ]
    metric: Annotated[str, about("metric compared")]
    split: Annotated[str, about("split it was measured on")]
    task: Annotated[str, about("task whose train was split")]
    chosen: Annotated[Real, about("learning rate taken")]
    options: Annotated[Space, about("options taken, by name; absent where the learning rate alone was selected")] = {}

    @property
    def edge(self) -> Edge:
        """Which end of the learning rates with a result was taken; empty for one between others, or if one was given.

        A rate at which training diverged has a result; one that failed for another reason has none.
        """
        return self._edge(self.chosen, lambda trial: trial.lr)[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader of a score must know of the choice."""
        lines: list[str] = []
        edge, count = self._edge(self.chosen, lambda trial: trial.lr)
        if edge:
            tried = f"the {edge} of the {count} learning rates that were tried"
            lines.append(f"{self.chosen:g} is {tried}: a better one may lie beyond")
        for name, value in self.options.items():
            edge, count = self._edge(value, lambda trial, name=name: trial.options.get(name))
            if edge:
                lines.append(f"{name}={value} is the {edge} of the {count} values that were tried")
        return tuple(lines)

    def _edge(self, chosen: Option, value_of: Callable[[Trial], Option]) -> tuple[Edge, int]:
        """Which end of the numbers with a result was chosen, and how many were tried; no end of one, or of others."""
        tried = {value_of(trial) for trial in self.trials}
        if len(tried) < 2 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in tried):
            return "", len(tried)
        results = [value_of(trial) for trial in self.trials if trial.value is not None or trial.state == "diverged"]
        numbers = [one for one in results if isinstance(one, int | float)]
        return "smallest" if chosen == min(numbers) else "largest" if chosen == max(numbers) else "", len(tried)


class LayerRank(Part, frozen=True, kw_only=True):
    """The rank of one layer's ΔW."""

    layer: Annotated[str, about("name of the adapted layer")]
    shape: Annotated[tuple[Count, Count], about("rows and columns of ΔW")]
    nominal: Annotated[Count, about("rank the method allows; what is left of it where the method prunes, 0 if nothing")]
    stable: Annotated[Real, about("‖ΔW‖_F² / ‖ΔW‖₂²")]
    effective: Annotated[Real, about("exponential of the entropy of the normalised singular values")]
    energy90: Annotated[Count, about("singular values that carry 90 % of ‖ΔW‖_F²")]
    norm: Annotated[Real, about("‖ΔW‖₂, the largest singular value")]
    how: Annotated[
        Literal["svd", "gram", "factors"],
        about("how the singular values were computed: float64 SVD, float64 Gram matrix, or QR of ΔW's factors"),
    ]


class LayerSpectrum(Part, frozen=True, kw_only=True):
    """The last spectrum of a layer, summed up."""

    of: Annotated[Quantity, about("what was looked at")]
    layer: Annotated[str, about("name of the layer, trained matrix or module")]
    step: Annotated[Count, about("optimiser steps done")]
    stable: Annotated[Real, about("Σσ²/σ₁²")]
    effective: Annotated[Real, about("exponential of the entropy of the normalised singular values")]
    energy90: Annotated[Count, about("singular values that carry 90 % of Σσ²")]
    norm: Annotated[Real, about("σ₁, the largest singular value")]


class RankSeries(Part, frozen=True, kw_only=True):
    """The course of effective rank."""

    of: Annotated[Quantity, about("what was looked at")]
    layers: Annotated[Count, about("how many layers")]
    steps: Annotated[tuple[Count, ...], about("optimiser steps done at each look")]
    effective: Annotated[
        tuple[Real | None, ...], about("mean effective rank over the layers; null where none was finite")
    ]


class Spectra(Part, frozen=True, kw_only=True):
    """Singular values during training, summed up."""

    layers: Annotated[tuple[LayerSpectrum, ...], about("the last spectrum of each layer looked at")]
    series: Annotated[tuple[RankSeries, ...], about("the course of effective rank")]


class Cost(Part, frozen=True, kw_only=True):
    """What a run took. Seconds count all processes of a run that was resumed."""

    steps: Annotated[Count, about("optimiser steps")]
    samples: Annotated[Count, about("examples seen, repeats counted")]
    train_s: Annotated[Real, about("seconds of training")]
    eval_s: Annotated[Real, about("seconds of evaluation")]
    tracking_s: Annotated[Real, about("seconds of train_s that spectra took")]
    peak_memory_bytes: Annotated[Count | None, about("peak memory in bytes; null where unknown")]
    cache_bytes: Annotated[Count, about("bytes kept per device in training of what was computed once per example")]
    optimizer_bytes: Annotated[Count, about("bytes of the optimiser's state on one device")]
    device: Annotated[str, about("name of the device")]
    devices: Annotated[Count, about("how many")]
    resumed_at: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=LARGEST)], ...],
        about("steps after which an interrupted run went on; seconds count all its processes"),
    ]


class LossPoint(Part, frozen=True, kw_only=True):
    """Training loss of one batch."""

    step: Annotated[Count, about("optimiser step")]
    loss: Annotated[float, about("training loss of that step's batch")]


class Evaluation(Part, frozen=True, kw_only=True):
    """Scores during training."""

    step: Annotated[Count, about("optimiser steps done")]
    metrics: Annotated[Scores, about("every metric of every evaluation split")]


class SweepPoint(Part, frozen=True, kw_only=True):
    """Scores of the trained network without its first adapters."""

    n: Annotated[Count, about("blocks from the bottom that did without their adapters")]
    primary: Annotated[float, about("value of the primary metric")]
    metrics: Annotated[Scores, about("every metric of every evaluation split")]


class Provenance(Part, frozen=True, kw_only=True):
    """How to repeat a run."""

    created: Annotated[str, about("start of the run, ISO 8601, UTC")]
    command: Annotated[tuple[str, ...], about("the command that repeats this run alone; empty for a trial")]
    git: Annotated[str | None, about("commit of the code; null outside a repository")]
    packages: Annotated[dict[str, str], about("versions of the packages that matter, by name")]
    python: Annotated[str, about("Python's version")]
    platform: Annotated[str, about("operating system and machine")]


class Tracking(Part, frozen=True, kw_only=True):
    """The mirror of a record in another program."""

    kind: Annotated[MirrorKind, about("service")]
    mode: Annotated[Literal["online", "offline"], about("whether it was sent")]
    id: Annotated[str, about("the service's id of the run")]
    error: Annotated[str | None, about("why mirroring failed; null where it did not")]
    directory: Annotated[str | None, about("local folder of an offline mirror")]


class TrainingResult(Part, frozen=True, kw_only=True):
    """The fields of a record that training decides, and the parameters of the backbone before it was adapted."""

    metrics: Metrics
    params: Parameters
    ranks: tuple[LayerRank, ...]
    cost: Cost
    curve: tuple[LossPoint, ...]
    warnings: tuple[str, ...]
    backbone_parameters: Count
    report: FreeForm = {}
    spectra: Spectra | None = None
    evaluations: tuple[Evaluation, ...] = ()
    sweep: tuple[SweepPoint, ...] = ()
    files: dict[str, Sha256] = {}


class Record(Part, frozen=True, kw_only=True):
    """One run: what was run, its scores, what it cost and where it came from.

    A done run has a learning rate, metrics, params and cost, and no error. A failed, oom or diverged one has an error.
    A diverged one has no metrics. Elsewhere, what is not known is null.
    """

    schema: Annotated[Literal[2], about("version of this schema")]
    run_id: Annotated[RunId, about("names run and folder: hash of specification, protocol, data and weights")]
    group_id: Annotated[RunId, about("the same hash without the seed: runs that differ only by seed share it")]
    state: Annotated[State, about("where the run stands")]
    error: Annotated[RunError | None, about("why a run failed, in three parts; null where it did not")]
    warnings: Annotated[tuple[str, ...], about("lines the reader of a score must see, such as a ΔW that barely moved")]
    spec: Annotated[StoredSpec, about("the RunSpec")]
    lr: Annotated[Real | None, about("learning rate really used; null while none is chosen")]
    task: Annotated[TaskInfo, about("what was learned")]
    backbone: Annotated[BackboneInfo, about("what was adapted")]
    source: Annotated[SourceInfo, about("where the data came from")]
    metrics: Annotated[Metrics | None, about("the scores after the last step, never the best evaluation; null if none")]
    params: Annotated[Parameters | None, about("sizes; null where the model was never built")]
    selection: Annotated[Selection | None, about("how the learning rate was chosen; null where it was given")]
    ranks: Annotated[tuple[LayerRank, ...], about("the rank of ΔW really used, per adapted layer; empty without a ΔW")]
    cost: Annotated[Cost | None, about("what the run took; null where it never trained")]
    curve: Annotated[tuple[LossPoint, ...], about("training loss over time")]
    provenance: Annotated[Provenance, about("how to repeat the run")]
    tracking: Annotated[Tracking | None, about("the mirror of this record; null where there is none")]
    spectra: Annotated[
        Spectra | None,
        about(
            "singular values during training, summed up; all of them are in spectra.npz beside the record; "
            "absent where none were taken"
        ),
    ] = None
    report: Annotated[
        FreeForm, about("what else the method tells of the run, such as the course of AdaLoRA's budget")
    ] = {}
    evaluations: Annotated[
        tuple[Evaluation, ...], about("scores during training, where --evaluate or the method asks for them")
    ] = ()
    sweep: Annotated[
        tuple[SweepPoint, ...], about("the trained network without its first n adapters, where that is possible")
    ] = ()
    files: Annotated[
        dict[str, Sha256],
        about(
            "sha256 of every file that a done run keeps beside the record, by its path in the folder; "
            "absent where it keeps none"
        ),
    ] = {}
    digest: Annotated[
        str,
        about(
            "sha256 of the file's canonical JSON (sorted keys, no spaces, ASCII) without this field; "
            "absent in older records"
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Check what a state needs, and that JSON holds all numbers; the ValueError begins with the field's name."""
        if self.state == "done":
            for name in ("lr", "metrics", "params", "cost"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: null, but a done run has it")
            if self.error:
                raise ValueError("error: a done run has none")
        if self.state in ("failed", "oom", "diverged") and not self.error:
            raise ValueError(f"error: null, but a run that is {self.state} has one")
        if self.state == "diverged" and self.metrics:
            raise ValueError("metrics: a diverged run has none")
        if self.report or self.source.reading:
            free = {"report": self.report, "source": {"reading": self.source.reading}}
            for reason in unusable(free):
                raise ValueError(reason)


class DoneRecord(Record, frozen=True, kw_only=True):
    """The type of a record whose state is done, after `is_done`; files are always read as `Record`."""

    lr: float
    metrics: Metrics
    params: Parameters
    cost: Cost


def is_done(record: Record) -> TypeGuard[DoneRecord]:
    """Whether a run is done, so that it has a learning rate, metrics, params and a cost."""
    return record.state == "done"


def unusable(value: object, field: str = "", depth: int = 0) -> Iterator[str]:
    """What a JSON value holds that a record must not: NaN, an infinity, an integer beyond 64 bits, or deep nesting."""
    if depth > DEEPEST:
        yield f"{field[:60]}: nested deeper than {DEEPEST} levels"
    elif isinstance(value, dict):
        for key, item in cast(dict[str, object], value).items():
            yield from unusable(item, f"{field}.{key}" if field else key, depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast(list[object], value)):
            yield from unusable(item, f"{field}[{index}]", depth + 1)
    elif (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) > LARGEST):
        yield f"{field or 'record'}: not a finite number of 64 bits"
