"""A finished run as a network that computes again: its backbone opened, its method rebuilt, what it trained loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench.api.task import Modality, TaskSpec
from bench.backbones import open_backbone
from bench.config.options import Value, build, options_of
from bench.config.overrides import Overrides
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError
from bench.records.files import SHOWN, checked
from bench.records.record import ADAPTER, DoneRecord, Record, is_done
from bench.records.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api.backbone import Backbone
    from bench.api.batching import Batch
    from bench.api.method import Method

WORDS = ("A short text.", "A second text, which is a little longer than the first one is.", "Three words here.", "One.")
"""Texts on which a method is rebuilt; nothing of them stays."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that is done, with its trained weights and its backbone found and checked; nothing is built.

    Attributes:
        backbone_name: as it is opened: a folder, a hub id or a registered name.
        file: the run's adapter and head.
    """

    record: DoneRecord
    spec: RunSpec
    task: TaskSpec
    backbone: Backbone
    backbone_name: str
    file: Path

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in order; empty for numbers."""
        return self.task.labels or tuple(map(str, range(self.task.num_classes)))

    @property
    def scale(self) -> tuple[float, float]:
        """Factor and shift that turn a number that the network gives into one of the user's."""
        found: Mapping[str, float] = self.record.source.reading.get("scale") or {}
        return found.get("deviation", 1.0), found.get("mean", 0.0)

    @property
    def pooling(self) -> str:
        """How token features become one vector."""
        asked = self.spec.options.head.pooling
        return self.backbone.pooling if asked == "auto" else asked

    def tensors(self) -> dict[str, Tensor]:
        """Load adapter and head.

        Raises:
            EnvironmentProblem: the file cannot be read, or holds no head.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(self.file)
        except (SafetensorError, OSError) as error:
            todo = "Run its command again elsewhere."
            raise EnvironmentProblem(f"{self.file} cannot be read", str(error), todo) from error
        if "head.weight" not in tensors:
            known = "an earlier version left a frozen head out"
            raise UsageError(f"{self.file} holds no head", known, "Run its command again.")
        return tensors

    def method(self) -> Method:
        """Build the network, adapt it as the run did and load what it trained, for evaluation, on the CPU.

        Raises:
            EnvironmentProblem: the tensors are not those of this method on this backbone.
        """
        options, kind = self.spec.options, registry.load("methods", self.spec.method)
        config = options.method.changed(start=None) if getattr(options.method, "start", None) else options.method
        method: Method = kind(
            self.backbone.load(task=self.task, head=options.head, seed=self.spec.seed),
            self.task,
            config,
            head=options.head,
            optim=options.optim,
            lr=self.record.lr,
            seed=self.spec.seed,
            allocation=options.allocation,
        )
        try:
            return method.restore(self.tensors(), self.examples())
        except ValueError as error:
            known = f"{self.file}: {error}"
            todo = "Use the version of lowrank-bench that trained it, which the record names, or train it again."
            raise EnvironmentProblem("the run's weights do not fit its method and backbone", known, todo) from error

    def examples(self) -> Batch:
        """Return four made-up examples of the task."""
        import torch

        task = self.task
        if task.modality == "text":
            tokenizer = self.backbone.tokenizer()
            found = tokenizer([*WORDS], padding=True, truncation=True, max_length=32, return_tensors="pt")
            names = ("input_ids", "attention_mask", "token_type_ids")
            inputs = {name: cast("Tensor", found[name]) for name in names if name in found}
        else:
            inputs = {"x": torch.randn(len(WORDS), *task.shape, generator=torch.Generator().manual_seed(0))}
        shape = (len(WORDS), task.num_classes) if task.multilabel else (len(WORDS), task.targets)
        several = task.multilabel or task.targets > 1
        labels = torch.zeros(shape if several else len(WORDS), dtype=torch.int64 if task.num_classes else torch.float32)
        return {"inputs": inputs, "labels": labels, "index": torch.arange(len(WORDS)), "weight": 1.0, "step": -1}


def open_run(
    record: Record, folder: Path, *, runs: Path, backbone: str | None = None, settings: Sequence[str] = ()
) -> FinishedRun:
    """Find and check what a run needs to compute again.

    Args:
        folder: the run's.
        runs: folder of the runs, for a backbone that is a run itself.
        backbone: where its weights are now; None: where they were.
        settings: options of the backbone, `backbone.key=value`, that take the place of the run's.

    Raises:
        UsageError: the run is not done, kept no weights, or learned nothing from labels.
        EnvironmentProblem: a file was changed, or the backbone is not there, or not the one of training.
    """
    if not is_done(record):
        todo = "Rerun its command, with --retry if it failed."
        raise UsageError(f"run {record.run_id} has no trained weights", f"its state is {record.state}", todo)
    if not registry.load_config("methods", record.spec.method).supervised:
        what = f"{record.spec.method} learned to recover what was masked, not labels"
        todo = f"Train on its network: bench run --method linear --backbone runs:{record.run_id} …"
        raise UsageError(what, f"run {record.run_id} has a network, and no head to predict or export", todo)
    file = checked(record, folder, ADAPTER)
    if not file.is_file():
        known = f"there is no {file}; runtime.save was {record.spec.options.runtime.get('save')}"
        todo = "Run its command with another --out and --set runtime.save=all."
        raise UsageError(f"run {record.run_id} kept no trained weights", known, todo)
    name = backbone or _given(record.provenance.command, "--backbone") or record.spec.backbone
    kind: type[Any] = registry.load_config("backbones", registry.opener(name))
    stored = {key: value for key, value in record.spec.options.backbone.items() if key in options_of(kind)}
    value = record.spec.to_json()
    spec = RunSpec.from_json({**value, "options": {**value["options"], "backbone": stored}}, backbone=kind)
    return FinishedRun(
        record=record,
        spec=spec,
        task=_task(record),
        backbone=_backbone(record, name, kind, stored, settings, runs),
        backbone_name=name,
        file=file,
    )


def _backbone(
    record: DoneRecord, name: str, kind: type[Any], stored: Mapping[str, Value], settings: Sequence[str], runs: Path
) -> Backbone:
    """Open the backbone, which must be the one of training."""
    before = Overrides.parse([text for text in _all(record.provenance.command, "--set") if _is_of_backbone(text)])
    now = Overrides.parse(settings)
    given = {key: one.value(space, key) for one in (before, now) for space, key in one.given if key in options_of(kind)}
    try:
        found = open_backbone(name, build(kind, {**stored, **given}, namespace="backbone"), runs=runs)
    except EnvironmentProblem as error:
        known = f"run {record.run_id} was trained on it; {error.known}"
        todo = f"If it is elsewhere now, name it: --backbone DIR or ID. {error.todo}"
        raise EnvironmentProblem(error.what, known, todo) from error
    if found.weights_hash != record.backbone.weights_hash:
        hashes = (found.weights_hash, record.backbone.weights_hash)
        this, that = (digest[:SHOWN] for digest in hashes)
        raise EnvironmentProblem(
            f"backbone '{name}' is not the one that run {record.run_id} was trained on",
            f"its content has the hash {this}…, that of training {that}…",
            "Name the one of training: --backbone DIR or ID, with --set backbone.revision=COMMIT if it is of the hub.",
        )
    return found


def _task(record: Record) -> TaskSpec:
    """Describe the task as far as a network needs it.

    Raises:
        UsageError: the record does not say the size of the images.
    """
    info, reading = record.task, record.source.reading
    labels = info.labels or tuple(map(str, reading.get("labels") or reading.get("classes") or ()))
    shape = info.shape
    if not shape and info.modality != "text":
        size = reading.get("size")
        if not isinstance(size, int):
            what = f"the record of run {record.run_id} lacks the size of its inputs"
            raise UsageError(what, "an earlier version of lowrank-bench wrote it", "Train it again.")
        shape = (1 if reading.get("mode") == "grey" else 3, size, size)
    return TaskSpec(
        name=info.name,
        version=info.version,
        modality=cast("Modality", info.modality),
        num_classes=info.num_classes,
        multilabel=info.multilabel,
        shape=tuple(shape),
        labels=labels,
        metrics=(),
        primary=(),
    )


def _given(command: Sequence[str], flag: str) -> str | None:
    return next(iter(_all(command, flag)), None)


def _all(command: Sequence[str], flag: str) -> list[str]:
    return [value for word, value in pairwise(command) if word == flag]


def _is_of_backbone(setting: str) -> bool:
    return setting.startswith("backbone.")
