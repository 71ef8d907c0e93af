"""GLUE's metrics against scikit-learn and scipy, on random predictions and on those that break scorers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
)

from bench.api import metrics
from bench.api.task import TaskSpec
from tasks.glue.task import GLUE

ORACLES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews": matthews_corrcoef,
    "pearson": lambda truth, guess: pearsonr(truth, guess)[0],
    "spearman": lambda truth, guess: spearmanr(truth, guess)[0],
}
PRIMARY = {
    "cola": ("matthews",),
    "stsb": ("pearson", "spearman"),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
}
CLASSIFYING = [member for member in GLUE.members if member != "stsb"]
BINARY = [member for member in CLASSIFYING if member != "mnli"]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """Both sides warn of undefined values; what they are is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def logits(classes: np.ndarray, num_classes: int, seed: int = 0) -> torch.Tensor:
    """Outputs whose largest entry is at `classes`, none of them a probability."""
    noise = np.random.default_rng(seed).normal(size=(len(classes), num_classes)) * 3 - 10
    noise[np.arange(len(classes)), classes] = noise.max(1) + 0.1
    return torch.tensor(noise, dtype=torch.float32)


def compare(task: TaskSpec, outputs: torch.Tensor, guess: np.ndarray, truth: np.ndarray) -> None:
    found = metrics.evaluate(task, outputs, torch.tensor(truth))
    assert set(found) == set(task.metrics)
    for name, value in found.items():
        # torchmetrics adds float32's epsilon to the denominators of the others
        assert value == pytest.approx(ORACLES[name](truth, guess), abs=1e-9 if name == "pearson" else 1e-6), name


@pytest.mark.parametrize("member", CLASSIFYING)
@pytest.mark.parametrize("seed", range(5))
def test_random_predictions(member: str, seed: int) -> None:
    task, draw = GLUE(member).spec, np.random.default_rng(seed)
    truth, guess = draw.integers(0, task.num_classes, (2, 277))
    guess = np.where(draw.random(277) < 0.4, truth, guess)
    compare(task, logits(guess, task.num_classes, seed), guess, truth)


@pytest.mark.parametrize("member", BINARY)
@pytest.mark.parametrize(
    ("truth", "guess"),
    [
        ([0, 1, 1, 0, 1], [0, 1, 1, 0, 1]),
        ([0, 1, 1, 0, 1], [1, 0, 0, 1, 0]),
        ([0, 0, 0, 0, 1], [1, 1, 1, 1, 0]),
        ([1, 1, 1, 1, 0], [1, 1, 1, 0, 0]),
        ([0, 1, 0, 1], [0, 0, 1, 1]),
    ],
    ids=["right", "wrong", "rare, wrong", "rare, one off", "chance"],
)
def test_small_cases(member: str, truth: list[int], guess: list[int]) -> None:
    task = GLUE(member).spec
    compare(task, logits(np.array(guess), 2), np.array(guess), np.array(truth))


@pytest.mark.parametrize("member", BINARY)
@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("positives", [1, 140, 199])
def test_one_class_predicted(member: str, constant: int, positives: int) -> None:
    """What a network that learned nothing does on unbalanced labels; by scikit-learn its Matthews is 0."""
    truth = np.array([1] * positives + [0] * (200 - positives))
    guess = np.full(200, constant)
    compare(GLUE(member).spec, logits(guess, 2), guess, truth)


@pytest.mark.parametrize("member", ["cola", "mrpc"])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_one_class_labelled(member: str, label: int, seed: int) -> None:
    guess = np.random.default_rng(seed).integers(0, 2, 50)
    compare(GLUE(member).spec, logits(guess, 2), guess, np.full(50, label))


@pytest.mark.parametrize(("constant", "missing"), [(0, 1), (1, 0), (2, 2)])
def test_three_classes_with_some_absent(constant: int, missing: int) -> None:
    truth = np.array([c for c in [0, 1, 2] * 20 if c != missing])
    guess = np.full(len(truth), constant)
    compare(GLUE("mnli").spec, logits(guess, 3), guess, truth)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["random", "ties", "monotone", "reversed", "far", "narrow", "outlier", "two values"])
def test_scores(kind: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 26, 150) / 5  # STS-B's own labels are full of ties
    guess = {
        "random": truth + draw.normal(size=150),
        "ties": np.round(truth + draw.normal(size=150)),
        "monotone": np.exp(truth),
        "reversed": -truth,
        "far": 1e4 + truth + draw.normal(size=150),
        "narrow": 2.5 + 1e-4 * (truth + draw.normal(size=150)),
        "outlier": np.where(np.arange(150) == 7, 1e4, draw.normal(size=150)),
        "two values": (draw.random(150) < 0.5).astype(float),
    }[kind]
    outputs = torch.tensor(guess, dtype=torch.float32)
    compare(GLUE("stsb").spec, outputs, outputs.double().numpy(), truth)


@pytest.mark.parametrize("value", [0.0, 0.1, 2.5, 1e6])
def test_constant_scores_count_as_no_correlation(value: float) -> None:
    """Undefined by the formula; scipy says nan, which no table can average."""
    truth = torch.arange(10.0) / 2
    assert np.isnan(pearsonr(truth.numpy(), np.full(10, value))[0])
    assert metrics.evaluate(GLUE("stsb").spec, torch.full((10,), value), truth) == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("n", [1, 10])
def test_constant_labels_give_a_number(n: int) -> None:
    found = metrics.evaluate(GLUE("stsb").spec, torch.arange(n) / n, torch.full((n,), 2.5))
    assert found == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("missing", [None, 0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_balanced_accuracy(seed: int, missing: int | None) -> None:
    """A class that only predictions have does not count."""
    spec = TaskSpec(
        name="t", version=1, modality="text", num_classes=4, metrics=("balanced_accuracy", "accuracy"), primary=()
    )
    draw = np.random.default_rng(seed)
    truth, guess = draw.choice(4, (2, 90), p=[0.6, 0.2, 0.15, 0.05])
    truth[truth == missing] = 1
    found = metrics.evaluate(spec, logits(guess, 4, seed), torch.tensor(truth))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, guess), abs=1e-9)
    assert found["accuracy"] != pytest.approx(found["balanced_accuracy"], abs=1e-3)


SEVERAL = TaskSpec(
    name="t",
    version=1,
    modality="text",
    num_classes=5,
    multilabel=True,
    metrics=("micro_f1", "macro_f1", "map"),
    primary=("micro_f1",),
)


@pytest.mark.parametrize("scale", [0.1, 1, 100])
@pytest.mark.parametrize("seed", range(3))
def test_several_classes(seed: int, scale: float) -> None:
    """Logits with ties, from small ones to those whose sigmoids are 0 or 1; the threshold of ½ is 0 on them."""
    draw = np.random.default_rng(seed)
    truth = (draw.random((80, 5)) < [0.5, 0.3, 0.2, 0.1, 0.05]).astype(np.int64)
    truth[0] = 1  # each class is there
    scores = scale * (truth + draw.normal(size=(80, 5)) - 0.5).round(1)
    found = metrics.evaluate(SEVERAL, torch.tensor(scores), torch.tensor(truth))
    assert found == pytest.approx(
        {
            "micro_f1": f1_score(truth, scores > 0, average="micro"),
            "macro_f1": f1_score(truth, scores > 0, average="macro"),
            "map": average_precision_score(truth, scores, average="macro"),
        },
        abs=1e-6,
    )


def test_means_over_several_classes_leave_out_those_that_no_label_has() -> None:
    draw = np.random.default_rng(0)
    truth, scores = draw.integers(0, 2, (40, 5)), draw.normal(size=(40, 5))
    truth[:, 3] = 0
    found = metrics.evaluate(SEVERAL, torch.tensor(scores), torch.tensor(truth))
    others = [0, 1, 2, 4]
    assert found["micro_f1"] == pytest.approx(f1_score(truth, scores > 0, average="micro"), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(
        f1_score(truth[:, others], scores[:, others] > 0, average="macro"), abs=1e-6
    )
    assert found["map"] == pytest.approx(average_precision_score(truth[:, others], scores[:, others]), abs=1e-6)
    none = metrics.evaluate(SEVERAL, torch.tensor(scores), torch.zeros(40, 5))
    assert none == {"micro_f1": 0, "macro_f1": 0, "map": 0}


@pytest.mark.parametrize("member", GLUE.members)
def test_primary_is_the_mean_of_the_named(member: str) -> None:
    task = GLUE(member).spec
    assert task.primary == PRIMARY.get(member, ("accuracy",))
    assert set(task.primary) <= set(task.metrics)
    values = {name: 0.1 + 0.3 * i for i, name in enumerate(task.metrics)}
    want = np.mean([values[name] for name in task.primary])
    assert metrics.mean([values[name] for name in task.primary]) == pytest.approx(want)
    assert task.primary_name == "+".join(task.primary)
