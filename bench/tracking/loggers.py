"""Records written by Lightning's loggers: CSV files, TensorBoard, MLflow."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.records.record import DoneRecord
from bench.tracking.account import project
from bench.tracking.send import config, run_name, series, summary

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


def write(kind: str, record: DoneRecord, folder: Path) -> str:
    """Write the run below `folder`, MLflow's to MLFLOW_TRACKING_URI if set, and return the name of the folder in it."""
    logger = _logger(kind, record, folder)
    logger.log_hyperparams(flat(config(record)))
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    for values in series(record):
        by_step[int(values["step"])] |= {name: float(v) for name, v in values.items() if name != "step"}
    numbers = {name: float(v) for name, v in summary(record).items() if isinstance(v, int | float)}
    by_step[max([record.cost.steps, *by_step])] |= {"primary": record.metrics.primary.value, **numbers}
    for step, values in sorted(by_step.items()):
        logger.log_metrics(values, step=step)
    logger.save()
    logger.finalize("success")
    return kind


def flat(values: Mapping[str, object], before: str = "") -> dict[str, object]:
    """Join nested names by a slash, and write lists as text."""
    joined: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            joined |= flat(cast(dict[str, object], value), f"{before}{name}/")
        else:
            joined[f"{before}{name}"] = str(cast(object, value)) if isinstance(value, list) else value
    return joined


def _logger(kind: str, record: DoneRecord, folder: Path) -> Logger:
    from lightning.pytorch import loggers

    if kind == "csv":
        return loggers.CSVLogger(str(folder), name=kind, version="", flush_logs_every_n_steps=10**9)
    if kind == "tensorboard":
        return loggers.TensorBoardLogger(str(folder), name=kind, version="", default_hp_metric=False)
    tags = {"run_id": record.run_id, "group_id": record.group_id}
    (folder / kind).mkdir(exist_ok=True)
    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / kind).resolve()}/mlflow.db"
    return loggers.MLFlowLogger(experiment_name=project(), run_name=run_name(record), tags=tags, tracking_uri=where)
