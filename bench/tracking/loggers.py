"""Records written by Lightning's loggers: CSV files, TensorBoard, MLflow."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

from bench.records.record import DoneRecord
from bench.tracking.send import config, series, summary


def write(kind: str, record: DoneRecord, folder: Path) -> str:
    """Write the run below `folder`; MLflow writes to MLFLOW_TRACKING_URI, else into a database below `folder`.

    Returns:
        The name of the folder within the run's folder.
    """
    logger = _logger(kind, record, folder)
    logger.log_hyperparams(flat(config(record)))
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    for values in series(record):
        by_step[int(values["step"])] |= {name: float(v) for name, v in values.items() if name != "step"}
    last = max([record.cost.steps, *by_step])
    numbers = {name: float(v) for name, v in summary(record).items() if isinstance(v, int | float)}
    by_step[last] |= {"primary": record.metrics.primary.value, **numbers}
    for step, values in sorted(by_step.items()):
        logger.log_metrics(values, step=step)
    logger.save()
    logger.finalize("success")
    return kind


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Join nested names by a slash, and write lists as text."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(cast(dict[str, Any], value), f"{before}{name}/")
        else:
            found[f"{before}{name}"] = str(cast(object, value)) if isinstance(value, list) else value
    return found


def _logger(kind: str, record: DoneRecord, folder: Path) -> Any:
    from lightning.pytorch import loggers

    if kind == "csv":
        return loggers.CSVLogger(str(folder), name=kind, version="", flush_logs_every_n_steps=10**9)
    if kind == "tensorboard":
        return loggers.TensorBoardLogger(str(folder), name=kind, version="", default_hp_metric=False)
    from bench.tracking.account import project

    name = f"{record.spec.method} {record.spec.task} seed {record.spec.seed}"
    tags = {"run_id": record.run_id, "group_id": record.group_id}
    (folder / kind).mkdir(exist_ok=True)
    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / kind).resolve()}/mlflow.db"
    return loggers.MLFlowLogger(experiment_name=project(), run_name=name, tags=tags, tracking_uri=where)
