"""The power law of a spectrum against WeightWatcher, and against what was drawn from one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench.backbones import open_backbone
from bench.spectra import power_law_alpha, power_law_fit
from bench.spectra import powerlaw as module


@pytest.fixture(scope="module")
def weightwatcher() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import weightwatcher

    return weightwatcher


@pytest.fixture(scope="module")
def fitted(weightwatcher: Any) -> Callable[[np.ndarray], tuple[float, float, float]]:
    """α, xmin and distance of WeightWatcher's fit to the eigenvalues of a weight, by numpy's SVD."""
    watcher = weightwatcher.WeightWatcher(model=nn.Linear(30, 30))

    def fit(weight: np.ndarray) -> tuple[float, float, float]:
        sigma = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
        alpha, _, xmin, _, distance, *_ = watcher.fit_powerlaw(np.sort(sigma**2), plot=False)
        return alpha, xmin, distance

    return fit


DRAW = np.random.default_rng(3)
WEIGHTS = {
    f"{name} {m}×{n}": make((m, n)).astype(kind)
    for m, n, kind in [(8, 8, "f8"), (30, 12, "f4"), (19, 40, "f8"), (20, 20, "f8"), (64, 21, "f4"), (300, 200, "f4")]
    for name, make in {
        "normal": lambda shape: DRAW.normal(size=shape) / shape[0] ** 0.5,
        "heavy-tailed": lambda shape: DRAW.pareto(1.5, size=shape) * DRAW.choice([-1, 1], size=shape),
        "correlated": lambda shape: DRAW.normal(size=shape) @ np.diag(np.arange(1, shape[1] + 1) ** -0.7),
    }.items()
}
WEIGHTS["rank 25 of 50"] = DRAW.normal(size=(60, 25)) @ DRAW.normal(size=(25, 50))
WEIGHTS["half below the floor"] = np.diag(np.logspace(0, -5, 60))
WEIGHTS["near ties"] = np.eye(30) + 1e-3 * DRAW.normal(size=(30, 30))


@pytest.mark.parametrize("name", WEIGHTS)
def test_fit_is_weightwatchers(name: str, fitted: Callable[[np.ndarray], tuple[float, float, float]]) -> None:
    weight = WEIGHTS[name]
    want = fitted(weight)
    assert want[0] > 1
    for given in (weight, torch.from_numpy(weight)):
        found = power_law_fit(given)
        assert [float(part) for part in found[:3]] == pytest.approx(want, rel=1e-9)
        assert float(power_law_alpha(given)) == float(found.alpha)
    sigma = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    assert int(found.tail) == (sigma**2 >= want[1] * (1 - 1e-9)).sum()
    assert float(power_law_alpha(sigma, singular_values=True)) == pytest.approx(want[0], rel=1e-9)


def test_a_networks_layers_are_those_of_weightwatchers_table(weightwatcher: Any) -> None:
    """Its whole way from layers to a table, on MiniLM's attention and on small layers."""
    folder = open_backbone("minilm").path
    assert folder is not None
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(384, 384) for _ in "qv"), nn.Linear(60, 40), nn.Linear(40, 12))
    for layer, name in zip(model, ("query", "value"), strict=False):
        layer.weight.data = weights[f"encoder.layer.0.attention.self.{name}.weight"]
    table = weightwatcher.WeightWatcher(model=model).analyze(svd_method="accurate", detX=False, randomize=False)
    assert len(table) == 4
    layers: list[Any] = [*model]
    for layer, (_, row) in zip(layers, table.iterrows(), strict=True):
        found = power_law_fit(layer.weight)
        assert [float(part) for part in found[:3]] == pytest.approx([row.alpha, row.xmin, row.D], rel=1e-6)


def test_the_exponent_that_was_drawn_is_found() -> None:
    """Quantiles of λ^−2.5 from 1 on, under which lie 200 eigenvalues that are spread evenly."""
    tail = (1 - (np.arange(2000) + 0.5) / 2000) ** (-1 / 1.5)
    eigenvalues = np.concatenate([np.linspace(0.01, 0.9, 200), tail])
    found = power_law_fit(np.sqrt(eigenvalues), singular_values=True)
    assert float(found.alpha) == pytest.approx(2.5, abs=0.02)
    assert 0.9 <= float(found.xmin) <= 1.2 and 1500 <= int(found.tail) <= 2001
    assert float(found.distance) < 0.01


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((30, 30)),
        np.eye(30),
        np.ones((40, 20)),
        np.diag(np.arange(1.0, 8)),  # seven eigenvalues
        1e-4 * np.diag(np.arange(1.0, 31)),  # all below the floor
        np.ones((1, 50)),
    ],
    ids=["zero", "all equal", "rank 1", "seven", "tiny", "one row"],
)
def test_without_a_fit_all_is_zero(matrix: np.ndarray) -> None:
    assert [float(part) for part in power_law_fit(matrix)] == [0, 0, 0, 0]


def test_a_lower_floor_is_for_small_matrices() -> None:
    weight = WEIGHTS["normal 300×200"].astype(np.float64)
    small = power_law_fit(1e-5 * weight, floor=1e-15)
    whole = power_law_fit(weight)
    assert float(small.alpha) == pytest.approx(float(whole.alpha), rel=1e-9)
    assert float(small.xmin) == pytest.approx(1e-10 * float(whole.xmin), rel=1e-9)
    assert float(power_law_alpha(1e-5 * weight)) == 0


def test_blocks_of_candidates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = WEIGHTS["heavy-tailed 300×200"]
    whole = power_law_fit(weight)
    monkeypatch.setattr(module, "_BLOCK", 1000)  # five candidates at a time
    assert power_law_fit(weight) == whole


def test_batches_have_fits_of_their_own() -> None:
    batch = np.stack([WEIGHTS["normal 20×20"], np.zeros((20, 20)), WEIGHTS["heavy-tailed 20×20"]])
    found = power_law_fit(batch[None])
    assert found.alpha.shape == found.tail.shape == (1, 3) and found.tail.dtype == torch.int64
    assert found.alpha[0].tolist() == [float(power_law_alpha(one)) for one in batch]
