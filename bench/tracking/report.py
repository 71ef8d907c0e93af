"""A W&B report on a project's runs: accuracy against parameters, effective rank, parallel coordinates."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from bench.core.errors import EnvironmentProblem

TITLE = "lowrank-bench: score, parameters, rank"
ABOUT = "How good is each method, how few parameters does it train, and what rank does it really use?"


def report(entity: str, project: str, *, offline: bool = False) -> Any:
    """Build the report without saving it; `offline` leaves out the project's number, which only W&B knows."""
    try:
        wr = import_module("wandb_workspaces.reports.v2")
    except ImportError as error:
        known, todo = f"reports of W&B need it: {error}", 'Run: pip install "lowrank-bench[wandb]".'
        raise EnvironmentProblem("the package wandb-workspaces is not installed", known, todo) from error
    trained, used = wr.SummaryMetric("params/trainable"), wr.SummaryMetric("rank/effective")
    score, rate = wr.SummaryMetric("score"), wr.Config("lr")
    allowed = wr.SummaryMetric("rank/nominal")
    parameters = wr.ScatterPlot(title="Score against trained parameters", x=trained, y=score, z=used, log_x=True)
    rank = wr.ScatterPlot(title="Effective rank of ΔW against the nominal", x=allowed, y=used, log_x=True, log_y=True)
    rank_over_steps = wr.LinePlot(
        title="Effective rank of ΔW over training, by method",
        x="step",
        y=["effective_rank/updates"],
        groupby=wr.Config("method"),
        groupby_rangefunc="stddev",
        log_y=True,
    )
    by_layer, names = "Effective rank of ΔW over training, by layer", "effective_rank_by_layer/.*"
    rank_by_layer = wr.LinePlot(title=by_layer, x="step", y=[], metric_regex=names, log_y=True)
    loss = wr.LinePlot(title="Training loss, by method", x="step", y=["train/loss"], groupby=wr.Config("method"))
    layers = wr.WeavePanelSummaryTable(table_name="ranks")
    column = wr.ParallelCoordinatesPlotColumn
    columns = [
        column(metric=rate, display_name="learning rate", log=True),
        column(metric=trained, display_name="trained parameters", log=True),
        column(metric=used, display_name="effective rank"),
        column(metric=score, display_name="score"),
    ]
    parallel = wr.ParallelCoordinatesPlot(title="Learning rate, parameters, rank, score", columns=columns)
    where = {} if offline else {"entity": entity, "project": project}
    seeds = wr.Runset(**where, name="runs", groupby=["group"])
    return wr.Report(
        project=project,
        entity=entity,
        title=TITLE,
        description=ABOUT,
        width="fluid",
        blocks=[
            wr.P(ABOUT),
            wr.H2("Score and parameters"),
            wr.PanelGrid(runsets=[seeds], panels=[parameters, parallel]),
            wr.H2("Rank"),
            wr.PanelGrid(runsets=[seeds], panels=[rank, rank_over_steps, rank_by_layer, layers]),
            wr.H2("Training"),
            wr.PanelGrid(runsets=[seeds], panels=[loss]),
        ],
    )


def to_json(built: Any) -> object:
    """Return the content of a report as JSON values, without its random ids."""
    text = built._to_model().model_dump_json(by_alias=True, exclude_none=True)
    ids = ("id", "__id__", "ref")
    return json.loads(text, object_hook=lambda value: {n: item for n, item in value.items() if n not in ids})
