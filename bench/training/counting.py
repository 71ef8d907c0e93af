"""The parameters that a run trains, counted on its network without training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

from bench.api.backbone import Backbone
from bench.api.task import Task
from bench.core.errors import DataProblem
from bench.records.data import Dataset
from bench.records.spec import RunSpec
from bench.training.trainer import build


def count_parameters(spec: RunSpec, task: Task, dataset: Dataset, backbone: Backbone) -> dict[str, int] | None:
    """Build the network of a run on its first batch, and return `Method.parameter_counts`; None where data are too few.

    Raises:
        UsageError: options that do not fit this backbone.
    """
    examples = len(dataset.train)
    first = min(spec.batch_size, min(spec.train_samples or examples, examples) - spec.holdout)
    if isinstance(dataset.train, Sequence):  # texts, of which `build` would tokenise all
        dataset = replace(dataset, train=dataset.train[:first], evaluation={})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            spec = spec.on_one_device().with_(holdout=0, train_samples=None)
            return build(spec, task, dataset, backbone)[1].parameter_counts()
        except DataProblem:  # of these few examples
            return None
