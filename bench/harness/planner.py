"""From a request to cells: names resolved, options filled in, data and backbones opened, nothing trained yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from bench.api.backbone import Backbone
from bench.api.batching import Cut
from bench.api.peft import open_folder
from bench.api.task import Task
from bench.config.help import describe as describe_entry
from bench.config.overrides import named, resolve_all
from bench.config.sections import NAMESPACES, AllocationConfig
from bench.core import registry
from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.harness.inputs import Opened, Skip, open_backbones, open_tasks
from bench.harness.request import DEFAULT_BACKBONES, Request
from bench.records.data import Corpus
from bench.records.spec import Option, RunSpec

DEFAULT_STEPS = 150
HOLDOUT_SHARE, HOLDOUT_MOST = 0.1, 1000
"""`--select` decides on a tenth of train, on 1000 examples at most."""
SELECT_SEED = 0
"""Trials have one seed, whatever `--seeds` says, so that adding seeds changes no choice."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run to do.

    Attributes:
        trials: runs that choose this one's learning rate; empty if it is given.
    """

    spec: RunSpec
    opened: Opened
    backbone: Backbone
    trials: tuple[Cell, ...] = ()

    @property
    def task(self) -> Task:
        """The task, opened."""
        return self.opened.task

    @property
    def corpus(self) -> Corpus:
        """Its data."""
        return self.opened.corpus

    @property
    def run_id(self) -> str:
        """Hash of specification, data and weights."""
        return self.spec.run_id(self.corpus.hash, self.backbone.weights_hash)

    @property
    def group_id(self) -> str:
        """The same without the seed."""
        return self.spec.group_id(self.corpus.hash, self.backbone.weights_hash)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells, and what was left out."""

    cells: tuple[Cell, ...]
    skipped: tuple[Skip, ...]

    @property
    def trials(self) -> tuple[Cell, ...]:
        """The distinct trials of all cells, in order."""
        return tuple({t.run_id: t for cell in self.cells for t in cell.trials}.values())

    @property
    def broken(self) -> tuple[Skip, ...]:
        """What cannot run though it should."""
        return tuple(s for s in self.skipped if not s.absent)

    def to_json(self) -> dict[str, Any]:
        """`{cells: [{run_id, group_id, source, spec, trials}], skipped: [{name, absent, what, known, todo}]}`."""
        return {
            "cells": [_cell_json(cell) for cell in self.cells],
            "skipped": [
                {"name": s.name, "absent": s.absent, "what": s.error.what, "known": s.error.known, "todo": s.error.todo}
                for s in self.skipped
            ],
        }


def make(request: Request) -> Plan:
    """Resolve a request.

    Raises:
        UsageError: an unknown name, key or value.
        EnvironmentProblem: nothing of it can run, or, with `strict`, some of it cannot.
    """
    options = resolve_all(request.settings, request.methods, request.families, request.openers)
    for namespace, kind in NAMESPACES.items():
        kind(**options[request.methods[0]][namespace])  # checks ranges before anything is opened
    _share_out(options)
    request = replace(request, data=replace(request.data, **options[request.methods[0]]["data"]))
    micro = int(options[request.methods[0]]["runtime"]["micro_batch"] or 0)
    Cut(batch_size=request.batch_size, world=request.devices, micro=micro)
    starts = {method: _start(request, method, options[method]["method"]) for method in request.methods}
    skipped: list[Skip] = []
    tasks = open_tasks(request, request.tasks, skipped)
    backbones = open_backbones(request, skipped)
    selectors = open_tasks(request, (request.select_on,) if request.select_on else (), skipped)
    if request.select_on and not selectors:
        raise _nothing(skipped)
    cells: list[Cell] = []
    for method, backbone, opened in product(request.methods, backbones, tasks):
        if not request.backbones and DEFAULT_BACKBONES[opened.task.spec.modality] != backbone.name:
            continue
        if misfit := _misfit(request, method, backbone, opened):
            skipped.append(Skip(name=f"{method} × {opened.task.spec.name}", error=misfit))
            continue
        for seed in request.seeds:
            base = _spec(request, method, options[method], backbone, opened, seed).with_(start=starts[method])
            cells += _cells(request, base, opened, backbone, selectors[0] if selectors else opened)
    if not cells:
        raise _nothing(skipped)
    if request.strict and skipped:
        raise _nothing(skipped, "--strict: not all of what was asked can run")
    return Plan(cells=tuple({cell.run_id: cell for cell in cells}.values()), skipped=tuple(skipped))


def _share_out(options: dict[str, dict[str, dict[str, Option]]]) -> None:
    """Let those methods keep a given `allocation` that have a rank per layer; the others run as they always do.

    Raises:
        UsageError: none has one, or an adapter to start from decides it.
    """
    policy = next(iter(options.values()))["allocation"]["policy"]
    shares = policy != AllocationConfig().policy
    able = {name for name in options if describe_entry("methods", name).attributes.get("allocates")}
    if shares and not able:
        every = [n for n in registry.entries("methods") if describe_entry("methods", n).attributes.get("allocates")]
        raise UsageError(
            f"allocation.policy={policy}: {', '.join(options)} has no rank to share out between layers",
            f"methods that have: {', '.join(sorted(every))}",
            "Leave it out, or choose one of these.",
        )
    for name, given in options.items():
        if shares and name in able and given["method"].get("start"):
            raise UsageError(
                f"allocation.policy={policy} with method.start",
                f"every layer of {name} has the rank that the adapter gives it",
                "Leave one of the two out.",
            )
        if not (shares and name in able):
            given["allocation"] = asdict(AllocationConfig())


def _cells(request: Request, base: RunSpec, opened: Opened, backbone: Backbone, decides: Opened) -> list[Cell]:
    """One cell per learning rate, or one whose learning rate its trials on `decides` choose."""
    attributes = describe_entry("methods", base.method).attributes
    given: dict[str, Any] = {"opened": opened, "backbone": backbone}
    scratch = 0.0 if backbone.pretrained else float(attributes.get("scratch_learning_rate", 0.0))
    if not request.select:
        rates = request.lrs or (scratch or float(attributes.get("learning_rate", 1e-3)),)
        return [Cell(spec=base.with_(lr=rate), **given) for rate in rates]
    around = tuple(float(f"{factor * scratch:.1g}") for factor in (0.3, 1, 3)) if scratch else ()
    own = around or attributes.get("learning_rates", (3e-4, 1e-3, 3e-3))
    rates = request.lrs or tuple(float(rate) for rate in own)
    name = decides.task.spec.name
    trial = base.with_(task=name, task_options=decides.task_options, seed=SELECT_SEED, track="off")
    trial = trial.with_(holdout=_holdout(decides.corpus))
    trials = [Cell(spec=trial.with_(lr=rate), opened=decides, backbone=backbone) for rate in rates]
    return [Cell(spec=base.with_(select=rates, select_on=name), **given, trials=tuple(trials))]


def _spec(
    request: Request, method: str, options: dict[str, dict[str, Option]], backbone: Backbone, opened: Opened, seed: int
) -> RunSpec:
    """The specification of a run, but for its learning rate."""
    return RunSpec(
        method=method,
        task=opened.task.spec.name,
        backbone=backbone.name,
        seed=seed,
        max_steps=request.max_steps or (None if request.epochs else DEFAULT_STEPS),
        epochs=request.epochs,
        batch_size=request.batch_size,
        train_samples=request.train_samples,
        precision=request.precision,
        method_options=options["method"],
        head=options["head"],
        optim=options["optim"],
        task_options=opened.task_options,
        backbone_options=backbone.options,
        allocation=options["allocation"],
        runtime=options["runtime"],
        accelerator=request.accelerator,
        devices=request.devices,
        track=request.track,
        out=str(request.out),
        penalty=options["penalty"],
        spectra=options["spectra"],
    )


def _start(request: Request, method: str, options: dict[str, Option]) -> str | None:
    """Folder that the option `start` names; in its place comes the hash of its content, with the options it decides.

    Raises:
        EnvironmentProblem: there is no adapter in it.
        UsageError: the method cannot start from it, or another value was given for an option that it decides.
    """
    if not options.get("start"):
        return None
    folder = open_folder(Path(str(options["start"])).expanduser())
    kind: type[Any] = registry.load("methods", method)
    decided: dict[str, Option] = kind.from_peft(folder)
    asked = named(request.settings)
    for key, value in decided.items():
        if key == "target" and key in asked:  # which layers an expression names, only the network can tell
            continue
        if key in asked and options[key] != value:
            raise UsageError(
                f"--set method.{key}={options[key]} contradicts the adapter to start from",
                f"{folder.path} has {key} {value}",
                "Leave the option out.",
            )
        options[key] = value
    options["start"] = f"sha256:{folder.hash}"
    return str(folder.path)


def _holdout(corpus: Corpus) -> int:
    return min(HOLDOUT_MOST, max(1, round(HOLDOUT_SHARE * len(corpus.train))))


def _misfit(request: Request, method: str, backbone: Backbone, opened: Opened) -> BenchError | None:
    """Why a method, a backbone and a task do not go together; None if they do."""
    task, there = opened.task.spec, len(opened.corpus.train)
    attributes = describe_entry("methods", method).attributes
    needs = attributes.get("needs")
    if task.modality not in backbone.modalities or (needs and task.modality not in needs):
        works = f", {method} works on {' and '.join(sorted(needs))}" if needs else ""
        return BenchError(
            f"{method} on {task.name} with {backbone.name} does not fit",
            f"the task is {task.modality}, the backbone reads {' and '.join(backbone.modalities)}{works}",
            f"`bench show {method}` says what it works on; `bench list backbones` what reads {task.modality}.",
        )
    if attributes.get("supervised", True) and not task.labelled:
        return BenchError(
            f"{method} on {task.name} does not fit",
            "the task has no labels, and the method learns from labels",
            "Take a method such as mlm.",
        )
    if request.train_samples is not None and request.train_samples > there:
        return UsageError(
            f"--train-samples {request.train_samples}: {task.name} has {there} training examples",
            "samples are drawn without replacement",
            "Ask for fewer, or leave the option away to train on all.",
        )
    return None


def _nothing(skipped: Sequence[Skip], what: str = "nothing of this can run") -> BenchError:
    """One error for all: the common one where it is common, else one line for each, with the names it concerns."""
    names: dict[str, list[str]] = {}
    known: dict[str, str] = {}
    for skip in skipped:
        names.setdefault(skip.error.what, []).append(skip.name)
        known.setdefault(skip.error.what, skip.error.known)
    first = skipped[0].error
    kind = UsageError if all(isinstance(skip.error, UsageError) for skip in skipped) else EnvironmentProblem
    if len(names) == 1:
        same = len({skip.error.known for skip in skipped}) == 1
        return kind(first.what, first.known if same else f"asked for {', '.join(names[first.what])}", first.todo)
    lines = [f"{', '.join(who)}: {reason} ({known[reason]})" for reason, who in names.items()]
    return kind(what, "\n".join(lines), first.todo)


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "run_id": cell.run_id,
        "group_id": cell.group_id,
        "source": {"kind": cell.corpus.source, "revision": cell.corpus.revision, "data_hash": cell.corpus.hash}
        | ({"reading": dict(cell.corpus.reading)} if cell.corpus.reading else {}),
        "spec": cell.spec.to_json(),
        "trials": [trial.spec.lr for trial in cell.trials],
    }
