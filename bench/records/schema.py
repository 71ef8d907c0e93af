"""What a record holds, as typed, frozen structures; the JSON schema and the tables of docs/record.md come from them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeGuard

import msgspec
from msgspec import Meta

from bench.core.errors import BenchError
from bench.records.data import SourceKind
from bench.records.fields import (
    LARGEST,
    Count,
    FreeForm,
    MirrorKind,
    Option,
    Part,
    Real,
    RunId,
    Sha256,
    Space,
    State,
    Whole,
    about,
    unusable,
)
from bench.records.results import (
    Cost,
    Evaluation,
    LayerRank,
    LossPoint,
    Metrics,
    Parameters,
    Selection,
    Spectra,
    SweepPoint,
    Truncation,
)


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
    labels: Annotated[tuple[str, ...], about("names of the classes in order; absent where there are none")] = ()
    shape: Annotated[
        tuple[Count, ...], about("of one input, channels first: (C, H, W) of an image; absent for texts")
    ] = ()


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
    ranks: Annotated[tuple[LayerRank, ...], about("ranks of ΔW per adapted layer; empty without a ΔW")]
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
    truncation: Annotated[
        Truncation | None,
        about(
            "scores with ΔW cut to its largest singular directions; absent without ΔW or with runtime.truncation=off"
        ),
    ] = None
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
