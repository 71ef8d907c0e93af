"""Mirrors of a record in other programs, written from the record alone; the suite never reads them for its results."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.core.errors import EnvironmentProblem
from bench.records.record import Record

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",)}
"""Value of `--track` → packages, one of which it needs and lowrank-bench does not install."""


def check(kind: str) -> None:
    """Check before training that the mirror can be written.

    Raises:
        EnvironmentProblem: its package is not installed.
    """
    wanted = PACKAGES.get(kind, ())
    if wanted and not any(find_spec(name) for name in wanted):
        raise EnvironmentProblem(
            f"--track {kind}: the package {wanted[0]} is not installed",
            "lowrank-bench does not install it",
            f"Run: pip install {wanted[0]}. Or leave --track out: the records are complete without a mirror.",
        )


def mirror(record: Record, folder: Path, kind: str = "wandb") -> dict[str, Any]:
    """Mirror a finished run, whose files are in `folder`.

    Returns:
        The record's `tracking` entry. A failure is in its `error`, and printed; it never fails the run.
    """
    kept: dict[str, Any] = {"kind": kind, "mode": "offline", "id": record["run_id"], "error": None, "directory": None}
    from bench.tracking import account

    try:
        if kind == "wandb":
            from bench.tracking import send

            kept["mode"] = account.mode()
            kept["directory"] = send.send(record, folder, kept["mode"])
        else:
            from bench.tracking import loggers

            kept["directory"] = loggers.write(kind, record, folder)
    except Exception as error:  # a mirror may fail in any way; the record stays valid
        kept["error"] = account.hidden(f"{type(error).__name__}: {error}").splitlines()[0]
        name = "W&B" if kind == "wandb" else kind
        sys.stderr.write(f"warning: {name} did not take {record['run_id']}: {kept['error']}\n")
    return kept
