"""A record as a W&B run with all of its content, so that W&B alone is enough to rebuild every table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.core.text import without_secrets
from bench.records.files import checked
from bench.records.record import ADAPTER, FILE, DoneRecord, Record
from bench.records.results import LayerRank
from bench.tracking.account import project

if TYPE_CHECKING:
    import wandb

PLACES = ("out", "start")
"""Fields of a specification that name folders of a machine, and mean nothing to readers of a project."""


def send(record: DoneRecord, folder: Path, mode: Literal["online", "offline"]) -> str | None:
    """Write the run, or send it, and return the local folder's name of an offline run.

    The same record again continues the same W&B run.

    Raises:
        EnvironmentProblem: a file that the run kept was changed.
    """
    import wandb

    spec = record.spec
    # what the run kept is read first: where a file was changed, nothing is sent
    courses = [*series(record), *by_layer(record, folder)]
    adapter = checked(record, folder, ADAPTER) if spec.options.runtime.get("track_artifact") else None
    run = wandb.init(
        project=project(),
        id=record.run_id,
        name=run_name(record),
        group=record.group_id,
        job_type=spec.method,
        tags=[tag[:64] for tag in (spec.method, spec.task, spec.backbone, record.source.kind)],
        config=config(record),
        mode=mode,
        dir=str(folder),
        resume="allow",
        # its metadata would hold this command as it was typed; the record has what is needed of it
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )
    try:
        _define(run, record)
        for values in courses:
            run.log(values)
        run.log({"primary": record.metrics.primary.value})
        run.summary.update(summary(record))
        if record.ranks:
            run.log({"ranks": _table(record.ranks)})
        if adapter and adapter.is_file():
            _artifact(run, record, adapter)
        _file(run, record)
        return Path(run.dir).parent.name if mode == "offline" else None
    finally:
        run.finish()  # otherwise the next run would be logged into this one


def run_name(record: Record) -> str:
    """The name of a run in other programs."""
    return f"{record.spec.method} {record.spec.task} seed {record.spec.seed}"


def config(record: Record) -> dict[str, object]:
    """The specification, and what the record says of task, backbone, source and origin."""
    spec = {name: value for name, value in record.spec.to_json().items() if name not in PLACES}
    about = {"task_info": record.task.to_json(), "backbone_info": record.backbone.to_json()}
    origin = {"source": record.source.to_json(), "provenance": record.provenance.to_json()}
    names = {"lr": record.lr, "run_id": record.run_id, "group_id": record.group_id}
    return without_secrets({**spec, **about, **origin, **names})


def summary(record: DoneRecord) -> dict[str, object]:
    """Scores, counts, costs and mean ranks, by flat names."""
    flat: dict[str, object] = {"state": record.state, "score": record.metrics.primary.value}
    for split, scores in record.metrics.all.items():
        flat |= {f"{split}/{name}": value for name, value in scores.items()}
    for part, values in (("params", record.params), ("cost", record.cost)):
        flat |= {f"{part}/{name}": value for name, value in values.to_json().items()}
    if record.ranks:
        for name in ("nominal", "stable", "effective", "energy90", "norm"):
            flat[f"rank/{name}"] = sum(getattr(rank, name) for rank in record.ranks) / len(record.ranks)
    return flat


def series(record: Record) -> Iterator[dict[str, float]]:
    """Yield values over steps: loss, scores during training, mean effective rank of every tracked quantity."""
    for point in record.curve:
        yield {"step": point.step, "train/loss": point.loss}
    for row in record.evaluations:
        named = {f"evaluation/{split}/{n}": v for split, scores in row.metrics.items() for n, v in scores.items()}
        yield {"step": row.step, **named}
    for course in record.spectra.series if record.spectra else ():
        for step, rank in zip(course.steps, course.effective, strict=False):
            if rank is not None:
                yield {"step": step, f"effective_rank/{course.of}": rank}


def by_layer(record: Record, folder: Path) -> Iterator[dict[str, float]]:
    """Yield each layer's effective rank of ΔW over steps, where the run's folder holds its singular values."""
    import torch

    from bench.spectra import effective_rank
    from bench.spectra.files.history import read_run

    stored = read_run(record, folder)
    for layer, history in stored.layers("updates").items() if stored else ():
        for step, values in zip(history.steps.tolist(), history.values, strict=True):
            rank = float(effective_rank(torch.from_numpy(values), singular_values=True))
            if isfinite(rank):
                yield {"step": step, f"effective_rank_by_layer/{layer}": rank}


def _define(run: wandb.Run, record: DoneRecord) -> None:
    """Say which way is better, and that series are over optimiser steps."""
    higher = record.metrics.primary.higher_is_better
    run.define_metric("primary", summary="max" if higher else "min")
    run.define_metric("train/loss", step_metric="step", summary="min")
    for name in ("evaluation/*", "effective_rank/*", "effective_rank_by_layer/*"):
        run.define_metric(name, step_metric="step")


def _table(ranks: Sequence[LayerRank]) -> wandb.Table:
    import wandb

    rows = [{**rank.to_json(), "shape": str(list(rank.shape))} for rank in ranks]
    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def _file(run: wandb.Run, record: Record) -> None:
    """The record itself. W&B sends a file of the run's folder only where `save` names it."""
    path = Path(run.dir) / FILE
    path.write_text(json.dumps(without_secrets(record.to_json()), indent=1) + "\n", encoding="utf-8")
    run.save(str(path), base_path=run.dir, policy="end")


def _artifact(run: wandb.Run, record: Record, adapter: Path) -> None:
    import wandb

    about = {"method": record.spec.method, "task": record.spec.task, "run_id": record.run_id}
    artifact = wandb.Artifact(f"adapter-{record.run_id}", type="model", metadata=about)
    artifact.add_file(str(adapter), name=ADAPTER)
    run.log_artifact(artifact)
