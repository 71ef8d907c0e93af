"""Collapse and rank of constructed features, checks of constructed trainings, and measurements that change nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scipy import stats
from torch import Tensor, nn

from bench.core.errors import Diverged, UsageError
from bench.experiments import collapse_rank, measurement
from bench.experiments.lab import Lab
from bench.experiments.statistics import spearman
from bench.spectra import Delta

K, D, EACH = 4, 6, 5
SHIFT = 3.0
"""What all features have in common: means and ranks are of the centred ones."""


class Hidden:
    """What `measure` asks of a method: one hidden layer (D, D) that has learned u·vᵀ while its start shrank by s."""

    def __init__(self, means: Tensor, left: float = 0.5) -> None:
        source = torch.Generator().manual_seed(0)
        self.head = nn.Linear(D, K)
        self.head.weight.data, self.head.bias.data = means.clone(), -SHIFT * means.sum(1)
        self.head.requires_grad_(False)
        self.start = torch.linalg.qr(torch.randn(D, D, generator=source)).Q
        u, v = torch.randn(D, 1, generator=source), torch.randn(1, D, generator=source)
        learned = u @ v
        learned -= (learned * self.start).sum() / self.start.square().sum() * self.start
        self.learned, self.left = learned, left
        self.delta = Delta(factors=(learned + (left - 1) * self.start,), nominal=D)

    def deltas(self) -> Any:
        yield "layer", self.delta

    def updates(self) -> Any:
        yield "layer", self.start, self.delta


def frame() -> Tensor:
    """K centred class means (K, D) that are a simplex equiangular tight frame."""
    simplex = torch.eye(K) - 1 / K
    return simplex @ torch.linalg.qr(torch.randn(D, K, generator=torch.Generator().manual_seed(1))).Q.mT


def measured(x: Tensor, labels: Tensor, method: Any = None) -> Any:
    return collapse_rank.measure(method or Hidden(frame()), x, labels)


def test_collapsed_features_have_rank_k_minus_one_and_every_nc_at_its_limit() -> None:
    labels = torch.arange(K).repeat(EACH)
    found = measured(frame()[labels] + SHIFT, labels)
    assert found["NC1"] == pytest.approx(0, abs=1e-6)
    assert found["NC2"] == pytest.approx(0, abs=1e-5)
    assert found["NC3"] == pytest.approx(0, abs=1e-5)
    assert (found["NC4"], found["accuracy"]) == (1, 1)
    assert found["features"] == pytest.approx(K - 1, abs=1e-4)
    assert found["features by energy"] == pytest.approx(K - 1, abs=1e-4)
    assert found["shuffled"] > 0.1, "shuffled labels are not collapsed"


def test_ranks_of_w_of_what_is_learned_and_of_the_update_are_numpys() -> None:
    method = Hidden(frame(), left=0.3)
    labels = torch.arange(K).repeat(EACH)
    found = measured(frame()[labels], labels, method)
    assert found["s"] == pytest.approx(0.3, abs=1e-5)
    start, learned = method.start.double().numpy(), method.learned.double().numpy()
    matrices = {"learned": learned, "W": 0.3 * start + learned, "ΔW": learned - 0.7 * start}
    for name, matrix in matrices.items():
        sigma = np.linalg.svd(matrix, compute_uv=False)
        p = sigma / sigma.sum()
        assert found[name] == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4), name
        assert found[f"{name} stable"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-4), name
    assert found["ΔW of layer"] == found["ΔW"]


def test_what_cannot_be_measured_is_an_error() -> None:
    labels = torch.arange(K).repeat(EACH)
    with pytest.raises(Diverged, match="diverged"):
        measured(frame()[labels] * math.nan, labels)
    with pytest.raises(UsageError, match="needs an example"):
        measured(frame()[labels], torch.zeros_like(labels))


def course(**ends: float) -> dict[int, dict[str, float]]:
    """A training to full collapse in which every prediction holds, but for what `ends` changes at its end."""
    steps = [0, 1, 10, 100]
    names = {
        "NC1": [1.0, 0.9, 0.2, 0.01],
        "features": [40.0, 30.0, 12.0, 9.2],
        "accuracy": [0.1, 0.5, 1.0, 1.0],
        "learned": [0.0, 19.0, 30.0, 40.0],
        "shuffled": [50.0, 60.0, 70.0, 80.0],
    }
    made = {step: {name: values[i] for name, values in names.items()} for i, step in enumerate(steps)}
    made[100] |= ends
    return made


def test_checks_hold_of_a_collapse_and_each_fails_of_its_own_opposite() -> None:
    assert all(check.held for check in collapse_rank.checks_of(course(), 10))
    assert all(control.held for control in collapse_rank.controls_of(course(), 10))
    for place, ends in ((1, {"NC1": 0.11}), (2, {"features": 10.5}), (2, {"features": 7.9}), (3, {"features": 99.0})):
        assert not collapse_rank.checks_of(course(**ends), 10)[place].held, ends
    late = course()
    late[1]["learned"] = 21.0  # at step 1 NC1 is still above half of its start; at step 10 it no longer is
    assert not collapse_rank.checks_of(late, 10)[4].held


def test_before_zero_training_error_nothing_holds() -> None:
    checks = collapse_rank.checks_of(course(accuracy=0.99), 10)
    assert not any(check.held for check in checks)
    assert all("not trained long enough" in check.note for check in checks)


def test_controls_are_not_as_expected_where_they_pass_the_check() -> None:
    assert not collapse_rank.controls_of(course(shuffled=0.05), 10)[0].held
    collapsed = course()
    collapsed[0]["features"] = 9.5
    assert not collapse_rank.controls_of(collapsed, 10)[1].held


def test_correlations_of_updates_leave_out_the_start() -> None:
    found = course()
    assert collapse_rank.correlation(found, "features") == 1
    assert collapse_rank.correlation(found, "learned") == -1
    found[0]["learned"] = 1e9
    assert collapse_rank.correlation(found, "learned") == -1


def test_spearman_is_scipys_with_ties() -> None:
    source = np.random.default_rng(0)
    x, y = source.integers(0, 6, 40), source.integers(0, 6, 40)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert spearman([1.0, 1.0], [1.0, 2.0]) == 0


def test_moments_are_spaced_in_their_logarithm_from_the_start_to_the_end() -> None:
    assert measurement.log_spaced_steps(1000, 5) == [0, 1, 10, 100, 1000]
    assert measurement.log_spaced_steps(4, 12) == [0, 1, 2, 3, 4]


class Noted(Callback):
    """Whether a module trains, after every step."""

    def __init__(self) -> None:
        self.training: list[bool] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.training.append(pl_module.training)


def test_measuring_changes_nothing_of_the_training(tmp_path: Path) -> None:
    grid: dict[str, Any] = {"methods": "full", "tasks": "digits", "backbones": "mlp", "max_steps": 6}
    grid |= {"batch_size": 32, "seeds": 0, "set": {"backbone.dropout": 0.5}}
    lab = Lab(folder=tmp_path)
    noted = Noted()

    def measure_features(method: Any, data: Any) -> Tensor:
        assert not method.training
        torch.rand(3)  # drawing must not reach the dropout masks of the next step
        return measurement.features(method, data, 40)[0]

    callback = measurement.MeasureAtSteps([0, 3, 6], measure_features)
    [(plain, _)], [(watched, data)] = (list(lab.train_with(callbacks, **grid)) for callbacks in ([], [callback, noted]))
    assert list(callback.results) == [0, 3, 6]
    assert noted.training == [True] * 6
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    watched.eval()
    x, labels = measurement.features(watched, data, 40)
    assert torch.equal(x, callback.results[6])
    index = measurement.sample_indices(len(data.train.labels), 40)
    assert labels.tolist() == data.train.labels[index].tolist()
    assert len(set(index)) == 40


def test_a_regression_is_refused(tmp_path: Path) -> None:
    config = replace(collapse_rank.CollapseRank.Config(), task="synthetic", backbone="dln", steps=12, seeds="0")
    with pytest.raises(UsageError, match="no classes"):
        collapse_rank.CollapseRank(config, Lab(folder=tmp_path)).run()
