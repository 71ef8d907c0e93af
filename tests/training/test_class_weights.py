"""Class weights of the loss against scikit-learn's, and runs that do not depend on how a batch is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lab import CLASSES, toy
from sklearn.utils.class_weight import compute_class_weight

from bench.api.batching import BatchSplit
from bench.api.datamodule import balanced_weights

NAMES = ("balanced_accuracy",)
BALANCED = replace(CLASSES, name="toy/balanced", num_classes=3, balanced=True, metrics=NAMES, primary=NAMES)


@pytest.fixture(scope="module")
def unequal(lab: Any, make_lab: Callable[..., Any]) -> Any:
    """34 training examples, of classes 0, 1 and 2 in about 1 : 3 : 13."""
    task = toy(BALANCED)

    def relabelled(rows: Any) -> list[Any]:
        return [row._replace(label=0 if i % 17 == 3 else 1 if i % 5 == 1 else 2) for i, row in enumerate(rows)]

    dev = {"dev": relabelled(task.dataset.evaluation["dev"])}
    task.dataset = replace(task.dataset, train=relabelled(task.dataset.train), evaluation=dev)
    return make_lab(backbone=lab.backbone, tasks={BALANCED.name: task})


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_scikit_learns(seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.choice(4, 60, p=draw.dirichlet(np.ones(4)))
    present = np.unique(labels)
    found = balanced_weights(labels.astype(float), 5)
    assert found[present] == pytest.approx(compute_class_weight("balanced", classes=present, y=labels), rel=1e-12)
    assert not found[np.setdiff1d(np.arange(5), present)].any(), "no class without examples has a weight"


@pytest.mark.parametrize(("world", "micro"), [(1, 0), (1, 4), (2, 0), (4, 2), (16, 1)])
@pytest.mark.parametrize("size", [16, 9, 2, 1])
def test_parts_add_up_to_the_weighted_mean_of_the_batch(world: int, micro: int, size: int) -> None:
    draw = np.random.default_rng(size)
    batch, losses, weights = draw.permutation(100)[:size], draw.normal(size=100), draw.uniform(0.1, 9, size=100)
    means: list[float] = []
    for rank in range(world):
        cut = BatchSplit(batch_size=16, rank=rank, world=world, micro=micro)
        for index in range(cut.parts):
            part, weight = cut.part(batch, index, weights)
            means.append(weight * np.average(losses[part], weights=weights[part]))
    assert np.mean(means) == pytest.approx(np.average(losses[batch], weights=weights[batch]), rel=1e-12)


def test_the_loss_is_torchs_weighted_mean_over_the_global_batch(unequal: Any) -> None:
    spec = unequal.spec("full", task=BALANCED.name, lr=0.0, max_steps=5)
    run = unequal.run(spec)
    labels = [row.label for row in unequal.tasks[BALANCED.name].dataset.train]
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert run.result.report["class_weights"] == pytest.approx(weights)
    method = run.method.eval()
    for step, loss in enumerate(run.losses):
        batch = run.data.collate(run.data.train, run.data.batches[step])
        with torch.no_grad():
            outputs = method(batch["inputs"])
        expected = F.cross_entropy(outputs, batch["labels"], weight=torch.tensor(weights, dtype=torch.float32))
        assert loss == pytest.approx(float(expected), rel=1e-5)
        plain = float(F.cross_entropy(outputs, batch["labels"]))
        assert len(batch["labels"]) < 3 or loss != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize(("method", "micro"), [("full", 1), ("lora", 4), ("dropout", 4)])
def test_micro_batches_change_nothing(unequal: Any, method: str, micro: int) -> None:
    """In float64, over more than an epoch: its last batch of 2 leaves nothing for most parts."""
    words: dict[str, Any] = {"task": BALANCED.name, "lr": 1e-3, "max_steps": 5, "precision": "64-true"}
    words["options"] = {"rate": 0.0} if method == "dropout" else {}
    whole = unequal.run(unequal.spec(method, **words))
    parts = unequal.run(unequal.spec(method, **words, runtime={"micro_batch": micro}))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-6)
    trained = dict(whole.method.named_parameters())
    for name, parameter in parts.method.named_parameters():
        assert torch.allclose(parameter, trained[name], rtol=0, atol=1e-7), name


def test_a_class_that_no_drawn_example_has_is_a_warning(unequal: Any) -> None:
    """Weights are those of the examples drawn: of 8 that seed 0 draws, none is of class 0."""
    run = unequal.run(unequal.spec("linear", task=BALANCED.name, max_steps=2, train_samples=8))
    labels = [int(label) for label in run.data.train.labels]
    present = np.unique(labels)
    assert len(present) == 2
    found = run.result.report["class_weights"]
    assert [found[c] for c in present] == pytest.approx(compute_class_weight("balanced", classes=present, y=labels))
    assert "1 of 3 classes have no example to train on" in run.result.warnings
    assert np.isfinite(run.losses).all()


def test_without_the_option_nothing_is_weighted(lab: Any) -> None:
    data, method = lab.build(lab.spec("linear"))
    assert data.class_weights is method.class_weights is None
    assert (data.report(), data.warnings()) == ({}, [])
