"""Evaluation metrics by name, from torchmetrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torchmetrics
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from bench.task import TaskSpec


def collection(task: TaskSpec) -> MetricCollection:
    """The task's metrics: class predictions and labels (N,), or scores and labels (N,) for regression."""
    binary = task.num_classes == 2
    kind: dict[str, Any] = {"task": "binary"} if binary else {"task": "multiclass", "num_classes": task.num_classes}
    micro: dict[str, Any] = kind if binary else {**kind, "average": "micro"}
    macro: dict[str, Any] = kind if binary else {**kind, "average": "macro"}
    make: dict[str, Callable[[], Metric]] = {
        "accuracy": lambda: torchmetrics.Accuracy(**micro),
        "f1": lambda: torchmetrics.F1Score(**macro),
        "matthews": lambda: torchmetrics.MatthewsCorrCoef(**kind),
        "pearson": torchmetrics.PearsonCorrCoef,
        "spearman": torchmetrics.SpearmanCorrCoef,
    }
    return MetricCollection({name: make[name]() for name in task.metrics})


def evaluate(task: TaskSpec, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Every metric of the task.

    Args:
        task: names the metrics.
        outputs: logits (N, classes), or scores (N,) for regression.
        labels: (N,).

    A correlation of constant predictions is undefined; it counts as 0, as GLUE's scorers are used in practice.
    """
    predictions = outputs.double() if task.num_classes == 0 else outputs.argmax(-1)
    targets = labels.double() if task.num_classes == 0 else labels
    if task.num_classes == 0 and float(predictions.std()) == 0.0:
        return dict.fromkeys(task.metrics, 0.0)
    metrics = collection(task)
    if task.num_classes == 0:
        metrics = metrics.set_dtype(targets.dtype)
    return {name: float(value) for name, value in metrics(predictions, targets).items()}


def primary(task: TaskSpec, values: dict[str, float]) -> float:
    """Mean of the primary metrics."""
    return mean([values[name] for name in task.primary])


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return sum(values) / len(values)
