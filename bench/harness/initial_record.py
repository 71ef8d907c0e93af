"""The record of a run before it has trained: everything that is known, nothing measured."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import structs

from bench.core.errors import EnvironmentProblem
from bench.harness.planner import PlannedRun
from bench.harness.repeat import repeat_command
from bench.harness.request import Request
from bench.records.fields import SCHEMA
from bench.records.results import Selection
from bench.records.schema import BackboneInfo, Options, Provenance, Record, SourceInfo, StoredSpec, TaskInfo
from bench.records.spec import RunSpec

PACKAGES = (
    *("torch", "torchvision", "lightning", "transformers", "timm", "torchmetrics", "datasets", "lowrank-bench"),
    *("numpy", "pillow", "scikit-learn"),
)


def initial_record(run: PlannedRun, request: Request) -> Record:
    """Raises EnvironmentProblem if a package whose version belongs into it, this one included, is not installed."""
    spec, task, dataset = run.spec, run.task.spec, run.dataset
    sizes = {"holdout": spec.holdout} if spec.holdout else {n: len(rows) for n, rows in dataset.evaluation.items()}
    return Record(
        schema=SCHEMA,
        run_id=run.run_id,
        group_id=run.group_id,
        state="running",
        error=None,
        warnings=(),
        spec=msgspec.convert(spec.to_json(), StoredSpec),
        lr=spec.lr,
        task=TaskInfo(
            name=task.name,
            version=task.version,
            modality=task.modality,
            num_classes=task.num_classes,
            note=task.note,
            multilabel=task.multilabel,
            labels=task.labels,
            shape=task.shape,
        ),
        backbone=BackboneInfo(
            name=run.backbone.name,
            parameters=run.backbone.parameters,
            weights_hash=run.backbone.weights_hash,
            pooling=run.backbone.pooling,
            parent=run.backbone.parent,
            random=not run.backbone.pretrained,
        ),
        source=SourceInfo(
            kind=dataset.source,
            revision=dataset.revision,
            data_hash=dataset.hash,
            train_examples=min(spec.train_samples or len(dataset.train), len(dataset.train)) - spec.holdout,
            evaluation_examples=sizes,
            reading=dict(dataset.reading),
        ),
        metrics=None,
        params=None,
        selection=None,
        ranks=(),
        cost=None,
        curve=(),
        provenance=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=tuple(repeat_command(run, request)),
            git=_git(),
            packages={name: _version(name) for name in (*PACKAGES, *_more_packages(spec))},
            python=platform.python_version(),
            platform=platform.platform(),
        ),
        tracking=None,
    )


def with_selection(current: Record, run: PlannedRun, selection: Selection) -> Record:
    """Return the record of a run with what was selected; `run` has the options that were chosen."""
    options = msgspec.convert(run.spec.to_json()["options"], Options)
    spec = structs.replace(current.spec, options=options)
    return structs.replace(current, selection=selection, spec=spec)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        here = Path(__file__).parents[2]
        known = f"a record says the versions that made it; running from {here} with {sys.executable}"
        what = f"pip install -e {here}" if package == "lowrank-bench" else f"pip install {package}"
        raise EnvironmentProblem(f"{package} is not installed", known, f"Run: {what}") from error


def _more_packages(spec: RunSpec) -> tuple[str, ...]:
    """Packages that decide the results of this run, but not of every one."""
    return (*(("peft",) if spec.method.startswith("peft:") else ()), *(("optuna",) if spec.trials else ()))


@cache
def _git() -> str | None:
    """Commit of this suite's own checkout, `+` if it has changes; None where it is installed without one."""
    argv = ["git", "-C", str(Path(__file__).parents[2])]

    def run(*more: str) -> str:
        return subprocess.run([*argv, *more], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
