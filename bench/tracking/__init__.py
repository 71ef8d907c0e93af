"""Mirrors of a record in other programs, written from the record alone; the suite never reads them for its results."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from bench.core.errors import EnvironmentProblem
from bench.records.fields import MirrorKind
from bench.records.record import DoneRecord
from bench.records.schema import Tracking

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",)}
"""Value of `--track` → packages, one of which it needs and lowrank-bench does not install."""


def check(kind: str) -> None:
    """Check before training that the mirror can be written; raises EnvironmentProblem without its package."""
    wanted = PACKAGES.get(kind, ())
    if wanted and not any(find_spec(name) for name in wanted):
        raise EnvironmentProblem(
            f"--track {kind}: the package {wanted[0]} is not installed",
            "lowrank-bench does not install it",
            f"Run: pip install {wanted[0]}. Or leave --track out: the records are complete without a mirror.",
        )


def mirror(record: DoneRecord, folder: Path, kind: MirrorKind = "wandb") -> Tracking:
    """Mirror a finished run of a folder, and return the record's entry; a failure is in it and never fails the run."""
    from bench.tracking import account, loggers, send

    mode: Literal["online", "offline"] = "offline"
    directory = failure = None
    try:
        if kind == "wandb":
            mode = account.mode()
            directory = send.send(record, folder, mode)
        else:
            directory = loggers.write(kind, record, folder)
    except Exception as error:  # a mirror may fail in any way; the record stays valid
        failure = account.first_line(error)
        name = "W&B" if kind == "wandb" else kind
        print(f"warning: {name} did not take {record.run_id}: {failure}", file=sys.stderr)
    return Tracking(kind=kind, mode=mode, id=record.run_id, error=failure, directory=directory)
