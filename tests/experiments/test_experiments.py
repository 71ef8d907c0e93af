"""Pieces of experiments against closed forms and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bench.experiments import Check, Control, Outcome
from bench.experiments.dropout_nuclear import closed_form
from bench.experiments.measurement import centred_rank
from bench.experiments.updates import energy, gaussian
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


def test_rank_of_features_is_that_of_the_centred_matrix() -> None:
    rows = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    rows[:, 5] = rows[:, 4]
    found = centred_rank(len(rows), rows.sum(0), rows.mT @ rows)
    assert found == pytest.approx(float(effective_rank(rows - rows.mean(0))), rel=1e-6)
    assert found < 5 + 1e-6
