"""Cuts against numpy's SVD, attributions of a linear network in closed form, and networks that stay as they were."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import EnvironmentProblem, UsageError
from bench.experiments import interpretability
from bench.experiments.attribution import Directions, Network, attribute, cosine
from bench.experiments.lab import Lab

M, N = 7, 5


def matrix(m: int = M, n: int = N, seed: int = 0) -> Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def layer() -> Directions:
    return Directions(torch.zeros(M, N), matrix())


@pytest.mark.parametrize("k", range(7))
def test_the_top_k_are_numpys_nearest_matrix_of_rank_k(layer: Directions, k: int) -> None:
    u, sigma, vt = np.linalg.svd(matrix().double().numpy(), full_matrices=False)
    np.testing.assert_allclose(layer.top(k).numpy(), (u[:, :k] * sigma[:k]) @ vt[:k], atol=1e-12)
    assert layer.energy(layer.top(k)) == pytest.approx((sigma[:k] ** 2).sum() / (sigma**2).sum())


@pytest.mark.parametrize("k", range(7))
def test_random_directions_project_delta(layer: Directions, k: int) -> None:
    found = layer.random(k, torch.Generator().manual_seed(3))
    whole = matrix().double()
    # ΔW·P with P a projection of rank k: ΔW has full column rank, so P is known from it
    p = torch.linalg.lstsq(whole, found).solution
    np.testing.assert_allclose((p @ p).numpy(), p.numpy(), atol=1e-10)
    np.testing.assert_allclose(p.numpy(), p.mT.numpy(), atol=1e-10)
    assert float(p.trace()) == pytest.approx(min(k, N))
    assert k in (0, 5, 6) or not torch.allclose(found, layer.random(k, torch.Generator().manual_seed(4)))


def test_random_singular_directions_are_some_of_deltas_own(layer: Directions) -> None:
    found = layer.random_singular(2, torch.Generator().manual_seed(0))
    left = torch.linalg.svdvals(found)[:2]
    assert all(any(torch.isclose(s, own) for own in layer.sigma) for s in left)
    drawn = {
        round(float(layer.energy(layer.random_singular(1, torch.Generator().manual_seed(s)))), 6) for s in range(30)
    }
    assert len(drawn) == N, "every direction can be drawn"
    assert torch.allclose(layer.random_singular(N, torch.Generator()), matrix().double())


@pytest.mark.parametrize("kind", ["integrated-gradients", "occlusion"])
def test_of_a_linear_network_an_attribution_is_weight_times_input(kind: Any) -> None:
    weight, x, labels = matrix(3, 6), matrix(4, 6, seed=1), torch.tensor([0, 2, 1, 2])
    network = nn.Linear(6, 3)
    network.weight.data = weight
    found = attribute(network, x, labels, kind)
    np.testing.assert_allclose(found.numpy(), (weight[labels] * x).numpy(), atol=1e-5)


def test_integrated_gradients_add_up_to_the_difference_from_the_baseline() -> None:
    x, labels = matrix(4, 6, seed=1), torch.tensor([0, 2, 1, 2])
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))
    found = attribute(network, x, labels, "integrated-gradients").sum(1)
    rise = (network(x) - network(torch.zeros_like(x)))[range(4), labels]
    np.testing.assert_allclose(found.numpy(), rise.detach().numpy(), atol=1e-4)


def test_occlusion_of_an_image_covers_windows_of_all_channels() -> None:
    x, labels = torch.ones(1, 2, 16, 16), torch.tensor([0])
    network = nn.Sequential(nn.Flatten(), nn.Linear(512, 2))
    network[1].weight.data.fill_(1.0)
    found = attribute(network, x, labels, "occlusion")
    assert torch.allclose(found, torch.full_like(x, 8.0))  # 2 channels × 2 × 2 ones go at once


def test_without_captum_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.setattr(Lab, "build", lambda *_, **__: pytest.fail("a network is built before captum is missed"))
    with pytest.raises(EnvironmentProblem, match=r'pip install "lowrank-bench\[experiments\]"'):
        interpretability.Interpretability(interpretability.Interpretability.Config(), Lab(folder=tmp_path)).run()


def test_cosine_is_the_mean_over_examples() -> None:
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert cosine(a, b) == pytest.approx((1 + 0.5**0.5 + 0) / 3)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(("backbone", "options"), [("mlp", {}), ("vit", {"backbone.depth": 2})])
def test_the_whole_delta_gives_the_trained_network_and_none_of_it_the_start(
    method: str, backbone: str, options: dict[str, Any], tmp_path: Path
) -> None:
    grid: dict[str, Any] = {"methods": method, "tasks": "digits", "backbones": backbone, "set": options}
    grid |= {"max_steps": 3, "batch_size": 16, "seeds": 0}
    lab = Lab(folder=tmp_path)
    [(before, _)], [(trained, data)] = list(lab.build(**grid)), list(lab.train_with(**grid))
    trained.eval()
    weights = {name: value.clone() for name, value in trained.state_dict().items()}
    x = data.first_batch()["inputs"]["x"]
    network = Network(trained)
    layers = network.directions
    assert layers
    with torch.no_grad():
        wanted = trained({"x": x})
        assert torch.allclose(network(x), wanted, atol=1e-6)
        assert torch.allclose(
            network.set_updates({n: one.top(10**6) for n, one in layers.items()})(x), wanted, atol=1e-5
        )
        network.set_updates({n: one.top(0) for n, one in layers.items()})
        assert not torch.allclose(network(x), wanted, atol=1e-4)
    for name, start, _ in before.updates():
        assert torch.allclose(layers[name].start.float(), start, atol=1e-7), name
    after = trained.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights.items()), "the method itself is left alone"


def test_text_and_regressions_are_refused(tmp_path: Path) -> None:
    made = interpretability.Interpretability
    for changes, said in (
        ({"task": "glue/rte", "backbone": "minilm"}, "is text"),
        ({"task": "synthetic", "backbone": "dln"}, "no classes"),
    ):
        with pytest.raises(UsageError, match=said):
            made(made.Config(steps=1, seeds="0", **changes), Lab(folder=tmp_path)).run()


def run_of(top: float, random: float, none: float, untrained: float) -> dict[tuple[str, int], dict[str, float]]:
    def one(value: float) -> dict[str, float]:
        return {"cosine": value, "kept": 1.0, "accuracy": 1.0, "energy": 0.5}

    i = interpretability
    at_twice = {(i.TOP, 6): one(top), (i.SINGULAR, 6): one(random), (i.RANDOM, 6): one(random)}
    at_none = {(choice, 0): one(none) for choice in (i.TOP, i.SINGULAR, i.RANDOM)}
    return {(i.UNTRAINED, 0): one(untrained), **at_none, **at_twice}


def test_the_verdict_needs_the_top_to_be_alike_and_every_control_not_to_be() -> None:
    verdict = interpretability.outcome
    assert verdict([run_of(0.95, 0.5, 0.4, 0.0)] * 2, 6, "t").held
    for values in ((0.89, 0.5, 0.4, 0.0), (0.95, 0.8, 0.4, 0.0), (0.95, 0.5, 0.8, 0.0), (0.95, 0.5, 0.4, 0.31)):
        assert not verdict([run_of(*values)], 6, "t").held, values
