"""Evaluation metrics by name, from torchmetrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from bench.api.task import TaskSpec

CORRELATIONS = ("matthews", "pearson", "spearman")


def collection(task: TaskSpec) -> MetricCollection:
    """Build the task's metrics, over class predictions and labels (N,), or scores and labels for regression."""
    classes = task.num_classes
    kind = "binary" if classes == 2 else "multiclass"
    builders: dict[str, Callable[[], Metric]] = {
        "accuracy": lambda: torchmetrics.Accuracy(kind, num_classes=classes, average="micro"),
        "balanced_accuracy": lambda: BalancedAccuracy(num_classes=classes),
        "f1": lambda: torchmetrics.F1Score(kind, num_classes=classes, average="macro"),
        "macro_f1": lambda: torchmetrics.F1Score("multiclass", num_classes=classes, average="macro"),
        "matthews": lambda: torchmetrics.MatthewsCorrCoef(kind, num_classes=classes),
        "pearson": torchmetrics.PearsonCorrCoef,
        "spearman": torchmetrics.SpearmanCorrCoef,
        "mse": torchmetrics.MeanSquaredError,
        "relative_error": RelativeError,
    }
    return MetricCollection({name: builders[name]() for name in task.metrics})


def evaluate(task: TaskSpec, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Return every metric of the task.

    Args:
        outputs: logits (N, classes), or scores (N,) or (N, k) for regression.
        labels: (N,), or (N, k) where NaN marks what was not observed and is left out; zeros and ones (N, classes) where
            the task is `multilabel`.

    A correlation with predictions or labels that are all equal is undefined and counts as 0, as in scikit-learn's
    `matthews_corrcoef`; torchmetrics gives NaN or, for Matthews, a small number that depends on the label balance.
    """
    if task.multilabel:
        return _evaluate_multilabel(task, outputs, labels)
    regression = task.num_classes == 0
    predictions = outputs.double() if regression else outputs.argmax(-1)
    targets = labels.double() if regression else labels
    if targets.ndim > 1:
        predictions, targets = (values[~targets.isnan()] for values in (predictions, targets))
    metrics = collection(task)
    computed = metrics.set_dtype(torch.float64)(predictions, targets) if regression else metrics(predictions, targets)
    values = {name: float(value) for name, value in computed.items()}
    if any(bool((given == given[0]).all()) for given in (predictions, targets)):
        values |= {name: 0.0 for name in CORRELATIONS if name in values}
    return values


def _evaluate_multilabel(task: TaskSpec, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Return F1 over all decisions (`micro_f1`), its mean over classes (`macro_f1`) and mean average precision (`map`).

    A class is predicted where its sigmoid is above ½, that is its logit above 0. Means over classes leave out those
    that no label has, whose average precision is undefined; without any class they are 0.
    """
    predicted, truth, classes = (outputs > 0).int(), labels.int(), task.num_classes
    # numbers in [0, 1) in the order of the logits: sigmoids of large ones would be equal
    order = outputs.unique(return_inverse=True)[1].double() / outputs.numel()
    scored = truth.any(0)
    values = {
        "micro_f1": multilabel_f1_score(predicted, truth, num_labels=classes, average="micro"),
        "macro_f1": multilabel_f1_score(predicted, truth, num_labels=classes, average="none")[scored].mean(),
        "map": multilabel_average_precision(order, truth, num_labels=classes, average="none")[scored].mean(),
    }
    return {name: float(values[name].nan_to_num()) for name in task.metrics}


class BalancedAccuracy(MulticlassConfusionMatrix):
    """Mean recall of the classes that labels have; torchmetrics' own counts classes too that were only predicted."""

    def compute(self) -> Tensor:
        """Return the mean over everything added."""
        matrix = super().compute().double()
        count = matrix.sum(1)
        return (matrix.diagonal() / count)[count > 0].mean()


class RelativeError(Metric):
    """‖ŷ − y‖₂ / ‖y‖₂ over all numbers: of a matrix, the relative error in the Frobenius norm."""

    full_state_update = False
    error: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("error", "total"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions and targets."""
        self.error += (preds - target).square().sum()
        self.total += target.square().sum()

    def compute(self) -> Tensor:
        """Return the error over everything added; 0/0 counts as 0."""
        return torch.where(self.total > 0, (self.error / self.total).sqrt(), self.error.sqrt())


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of at least one value."""
    return sum(values) / len(values)
