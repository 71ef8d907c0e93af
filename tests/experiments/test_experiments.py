"""Pieces of experiments against closed forms and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bench.api.task import TaskSpec
from bench.config.sections import HeadConfig
from bench.core import registry
from bench.experiments import Check, Control, Outcome
from bench.experiments.dropout_nuclear import closed_form
from bench.experiments.measurement import centred_rank
from bench.experiments.optimizers import carrying
from bench.experiments.updates import PENULTIMATE, energy, gaussian, resize
from bench.spectra import effective_rank


def test_a_check_of_a_number_that_is_none_never_holds() -> None:
    for make in (Check.near, Check.at_most, Check.at_least):
        assert not make("x", 1.0, math.nan, 10.0).held
    assert Check.near("x", 1.0, 1.1, 0.2).held
    assert not Check.near("x", 1.0, 1.3, 0.2).held
    assert Check.at_most("x", 1.0, 0.5).held
    assert not Check.at_most("x", 1.0, 1.1).held
    assert Check.at_least("x", 1.0, 0.95, 0.1).held
    assert not Check.at_least("x", 1.0, 0.95).held


def test_an_outcome_holds_where_all_of_it_does() -> None:
    good, bad = Check.near("a", 1, 1, 0), Check.near("b", 1, 2, 0)
    control = Control(name="c", expected="to fail", measured=3, held=True)
    assert Outcome(checks=[good], controls=[control]).held
    assert not Outcome(checks=[good, bad], controls=[control]).held
    assert not Outcome(checks=[good], controls=[Control(name="c", expected="", measured=3, held=False)]).held
    assert not Outcome(checks=[]).held
    nan = Outcome(checks=[Check.near("a", 1, math.nan, 0)]).to_json("x")
    assert nan["checks"] == [{"name": "a", "predicted": 1, "measured": None, "tolerance": 0, "held": False}]


@pytest.mark.parametrize("c", [0.05, 0.25, 1.0, 3.0])
def test_the_closed_form_minimises_its_objective(c: float) -> None:
    """Σ(a_i − σ_i)² + c·(Σa_i)² over a ≥ 0: what dropout at width k adds at least, (λ/k)·‖A‖_*²."""
    sigma = np.array([4.0, 3.0, 2.0, 1.0])
    found = minimize(
        lambda a: ((a - sigma) ** 2).sum() + c * a.sum() ** 2,
        sigma,
        bounds=[(0, None)] * 4,
        tol=1e-14,
        method="L-BFGS-B",
    )
    assert closed_form(sigma.tolist(), c) == pytest.approx(found.x, abs=1e-5)


def test_energy_is_that_of_the_svd() -> None:
    matrix = np.random.default_rng(1).normal(size=(7, 11))
    u, sigma, vt = np.linalg.svd(matrix, full_matrices=False)
    cut = (u[:, :3] * sigma[:3]) @ vt[:3]
    assert energy(sigma, 3) == pytest.approx((cut**2).sum() / (matrix**2).sum())
    assert energy(gaussian((300, 300)), 300) == pytest.approx(1)
    assert gaussian((40, 60)).shape == (40,)


def test_rows_of_equal_scores_carry_the_claim() -> None:
    """The scores of docs/reproductions.md: those of the ResNet's SGD and of the ViT have no equal of another kind."""
    mlp = {"sgd": 0.977, "momentum": 0.981, "adam": 0.987, "adamw": 0.987, "muon": 0.986}
    assert carrying(mlp) == [*mlp]
    assert carrying({"sgd": 0.957, "momentum": 0.975, "adam": 0.983, "adamw": 0.983}) == ["momentum", "adam", "adamw"]
    assert carrying({"sgd": 0.409, "momentum": 0.415, "adam": 0.694, "adamw": 0.694, "muon": 0.975}) == []
    assert carrying({"sgd": 0.4, "adam": 0.7, "muon": 0.71}) == ["adam", "muon"]


@pytest.mark.parametrize("depth", [None, 2, 5])
@pytest.mark.parametrize("width", [None, 48, 256])
@pytest.mark.parametrize("network", [*PENULTIMATE])
def test_the_layer_of_a_resized_network_is_its_last_hidden_one(
    network: str, width: int | None, depth: int | None
) -> None:
    if network == "resnet18":
        width = None
    options, layer = resize(network, width, depth)
    config = registry.load_config("backbones", network)(
        **{name.removeprefix("backbone."): value for name, value in options.items()}
    )
    task = TaskSpec(name="t", version=1, modality="image", num_classes=10, metrics=(), primary=(), shape=(1, 32, 32))
    built = registry.load("backbones", network)().open(network, config).load(task=task, head=HeadConfig(), seed=0)
    layers = [name for name, module in built.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert layer == [name for name in layers if name != "head"][-1]
    weight = built.get_submodule(layer).weight.flatten(1)
    own = {"dln": 1024, "mlp": 512, "vgg11": 512, "resnet18": 512, "vit": 192}[network]
    assert min(weight.shape) == (width or own)


def test_rank_of_features_is_that_of_the_centred_matrix() -> None:
    rows = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    rows[:, 5] = rows[:, 4]
    found = centred_rank(len(rows), rows.sum(0), rows.mT @ rows)
    assert found == pytest.approx(float(effective_rank(rows - rows.mean(0))), rel=1e-6)
    assert found < 5 + 1e-6
