"""A matrix of low rank from some of its entries by a deep factorisation that starts small (Arora et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from bench.backbones import open_backbone
from bench.backbones.dln import DLNConfig
from bench.records.data import DataRequest
from tasks.synthetic.task import Synthetic, SyntheticConfig


def complete(
    make_lab: Callable[..., Any], *, scale: float, lr: float, steps: int, depth: int = 3, **options: Any
) -> Any:
    """Full-batch gradient descent with momentum on a deep linear network, float32."""
    task: Any = Synthetic("completion")
    task.dataset = task.open(DataRequest(config=SyntheticConfig(**options)))
    backbone = open_backbone("dln", DLNConfig(depth=depth, init_scale=scale))
    lab = make_lab(backbone=backbone, tasks={task.spec.name: task})
    optim = {"name": "momentum", "warmup": 0.0, "clip": 0.0}
    given = {"task": task.spec.name, "batch_size": options["size"], "max_steps": steps, "lr": lr, "optim": optim}
    return lab.run(lab.spec("full", **given))


def hidden_error(run: Any, **options: Any) -> float:
    """‖P_hidden(W_L·…·W_1 − X)‖/‖P_hidden(X)‖ from the weights themselves."""
    whole: Any = Synthetic("factorization").open(DataRequest(config=SyntheticConfig(**options))).train
    matrix = torch.from_numpy(whole.targets.T).double()
    seen = ~torch.from_numpy(run.data.train.labels.T).isnan()
    assert torch.equal(torch.from_numpy(run.data.train.labels.T)[seen].double(), matrix[seen])
    found = run.method.head.weight.detach().double()
    for layer in reversed(run.method.backbone.layers):
        found = found @ layer.weight.detach().double()
    return float((found - matrix)[~seen].norm() / matrix[~seen].norm())


def check(run: Any, **options: Any) -> None:
    score = run.result.metrics.primary
    assert (score.name, score.higher_is_better) == ("relative_error", False)
    assert score.value < 1e-3
    assert score.value == pytest.approx(hidden_error(run, **options), rel=1e-2)
    values = np.array([(options["rank"] - i) / options["rank"] for i in range(options["rank"])])
    found = run.result.report["end_to_end"]
    assert found["norm"] == pytest.approx(1, abs=1e-3)
    assert found["effective"] == pytest.approx(np.exp(entropy(values)), abs=0.02)
    assert found["stable"] == pytest.approx((values**2).sum(), rel=1e-3)


def test_a_small_matrix_is_completed(make_lab: Callable[..., Any]) -> None:
    options = {"size": 50, "rank": 2, "fraction": 0.4}
    check(complete(make_lab, scale=0.01, lr=8, steps=1000, **options), **options)


def test_one_matrix_completes_nothing(make_lab: Callable[..., Any]) -> None:
    """Without depth nothing says that the rank is low: what was not told stays where it started."""
    options = {"size": 50, "rank": 2, "fraction": 0.4}
    run = complete(make_lab, scale=0.01, lr=8, steps=200, depth=1, **options)
    assert run.losses[-1] < 1e-6
    assert run.result.metrics.primary.value > 0.9


@pytest.mark.slow
def test_rank_5_of_200_from_three_tenths(make_lab: Callable[..., Any]) -> None:
    options = {"size": 200, "rank": 5, "fraction": 0.3}
    check(complete(make_lab, scale=0.01, lr=30, steps=2500, **options), **options)
