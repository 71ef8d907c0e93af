"""The deep linear network against numpy, and its law of parsimony (arXiv 2306.01154, 2311.02960) in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.api.task import TaskSpec
from bench.backbones import open_backbone
from bench.backbones.dense_networks import DeepLinearNet, initial_weight
from bench.backbones.dln import DLNConfig
from bench.backbones.seeding import generator
from bench.records.data import Arrays, Dataset
from tasks.io.arrays import ArrayDataModule

EPS = 0.5


def net(inputs: int = 12, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> DeepLinearNet:
    config = DLNConfig(**{"depth": 3, "init_scale": EPS, **options})
    return DeepLinearNet(inputs, config, seed=seed, dtype=dtype)


def head_of(network: DeepLinearNet, outputs: int, seed: int = 9) -> nn.Linear:
    return network.make_head(outputs, torch.Generator().manual_seed(seed))


def arrays(network: DeepLinearNet, head: nn.Linear) -> list[np.ndarray]:
    """W_1 … W_L."""
    return [layer.weight.detach().numpy() for layer in [*network.layers, head]]


@pytest.mark.parametrize("width", [None, 20, 7])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("init", ["orthogonal", "gaussian"])
def test_it_is_the_product_of_its_matrices(depth, width, init):
    network = net(depth=depth, width=width, init=init)
    head = head_of(network, 5)
    weights = arrays(network, head)
    assert len(weights) == depth
    assert network.width == (12 if depth == 1 else width or 12)
    product = np.linalg.multi_dot(weights[::-1]) if depth > 1 else weights[0]
    x = np.random.default_rng(0).normal(size=(6, 3, 2, 2))
    given = head(network(torch.tensor(x))).detach().numpy()
    np.testing.assert_allclose(given, x.reshape(6, 12) @ product.T, atol=1e-12)
    np.testing.assert_allclose(network.product(head).numpy(), product, atol=1e-12)
    assert not [name for name, _ in [*network.named_parameters(), *head.named_parameters()] if "bias" in name]


@pytest.mark.parametrize("width", [None, 20, 7])
def test_the_orthogonal_start_is_orthogonal_times_epsilon(width):
    network = net(width=width)
    for weight in arrays(network, head_of(network, 5)):
        rows, columns = weight.shape
        gram = weight @ weight.T if rows <= columns else weight.T @ weight
        np.testing.assert_allclose(gram, EPS**2 * np.eye(len(gram)), atol=1e-12)


def test_a_head_wider_than_its_input_has_orthonormal_columns():
    weight = arrays(net(width=3), head_of(net(width=3), 8))[-1]
    np.testing.assert_allclose(weight.T @ weight, EPS**2 * np.eye(3), atol=1e-12)


def test_the_orthogonal_start_is_uniform():
    """Columns of a Haar matrix have mean 0; without the sign of QR's diagonal its entry (0, 0) is never positive."""
    source = generator(0, "test")
    corner = np.array([float(initial_weight(4, 4, "orthogonal", 1.0, source)[0, 0]) for _ in range(2000)])
    assert abs(corner.mean()) < 4 * 0.5 / 2000**0.5  # entries have variance 1/4
    assert abs(corner.var() - 0.25) < 0.03


def test_the_gaussian_start_has_variance_epsilon_squared_over_fan_in():
    weight = initial_weight(500, 200, "gaussian", EPS, generator(0, "test")).numpy()
    assert weight.std() == pytest.approx(EPS / 200**0.5, rel=0.02)
    assert abs(weight.mean()) < 5 * EPS / 200**0.5 / weight.size**0.5
    assert abs(((weight / weight.std()) ** 4).mean() - 3) < 0.1  # a Gaussian's kurtosis


def test_float32_is_the_same_start_rounded():
    exact, rounded = net(), net(dtype=torch.float32)
    for a, b in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(a.float(), b)


def test_everything_follows_from_the_seed_and_nothing_else():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = net(init="gaussian")
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    again, other = net(init="gaussian"), net(init="gaussian", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert torch.equal(head_of(first, 5).weight, head_of(other, 5).weight)
    assert not torch.equal(head_of(first, 5).weight, head_of(first, 5, seed=8).weight)


def test_a_run_s_head_is_not_made_of_the_numbers_of_its_first_layer():
    network = net(init="gaussian")
    head = network.make_head(12, torch.Generator().manual_seed(0))  # as a method with the same seed does
    weights = np.stack([w.ravel() for w in arrays(network, head)])
    assert np.abs(np.corrcoef(weights) - np.eye(3)).max() < 0.3


# the report


def test_the_report_is_numpy_s_of_the_whole_product():
    network = net(width=20)
    head = head_of(network, 5)
    with torch.no_grad():
        head.weight[3] = head.weight[2]  # rank 4
    w1, w2, w3 = arrays(network, head)
    sigma = np.linalg.svd(w3 @ w2 @ w1, compute_uv=False)
    share = sigma[:4] / sigma[:4].sum()
    ranks = network.report(head)["end_to_end"]
    assert ranks["shape"] == [5, 12]
    assert ranks["numerical"] == 4 == np.linalg.matrix_rank(w3 @ w2 @ w1)
    assert ranks["stable"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2)
    assert ranks["effective"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert ranks["energy90"] == 1 + np.flatnonzero(np.cumsum(sigma**2) >= 0.9 * (sigma**2).sum())[0]
    assert ranks["norm"] == pytest.approx(sigma[0])


def test_the_numerical_rank_is_that_of_the_precision_trained_in():
    """A singular value of 1e-9·σ₁ is there in float64, and rounding in float32."""
    for dtype, rank in ((torch.float64, 5), (torch.float32, 4)):
        network = net(depth=1, dtype=dtype)
        head = head_of(network, 5).to(dtype)
        with torch.no_grad():
            head.weight[4] *= 1e-9
        assert network.report(head)["end_to_end"]["numerical"] == rank


def test_a_network_of_zeros_has_rank_zero():
    network = net(init_scale=0.0)
    assert network.report(head_of(network, 5)) == {
        "end_to_end": {"shape": [5, 12], "stable": 0.0, "effective": 0.0, "energy90": 0, "numerical": 0, "norm": 0.0}
    }


class LowRank(nn.Module):
    """What a method puts in the place of a layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.a, self.b = nn.Parameter(torch.full((1, 12), 0.3)), nn.Parameter(torch.linspace(0, 1, 12)[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + x @ self.a.mT @ self.b.mT


def test_the_report_sees_what_a_method_put_in_the_place_of_a_layer():
    network = net(dtype=torch.float32, dropout=0.5).train()
    head = head_of(network, 5).train()
    w1, w2, w3 = arrays(network, head)
    network.layers[0] = LowRank(network.layers[0])  # type: ignore[arg-type]
    low = network.layers[0]
    delta = (low.b @ low.a).detach().double().numpy()
    expected = w3.astype(float) @ w2.astype(float) @ (w1.astype(float) + delta)
    np.testing.assert_allclose(network.product(head).numpy(), expected, atol=1e-7)
    assert network.report(head) == network.report(head)  # no dropout in it
    assert network.training and head.training and network.drop.training
    assert network.layers[1].weight.dtype == torch.float32


def test_dropout_acts_between_every_two_matrices():
    ones = torch.ones(4, 12, dtype=torch.float64)
    network = net(depth=2, dropout=0.5).train()
    torch.manual_seed(0)
    kept = network(ones) / network.eval()(ones)
    assert set(kept.round().flatten().tolist()) == {0.0, 2.0}
    torch.manual_seed(0)
    deeper = net(depth=3, dropout=0.5).train()
    first = nn.functional.dropout(deeper.layers[0](ones), 0.5)
    expected = nn.functional.dropout(deeper.layers[1](first), 0.5)
    torch.manual_seed(0)
    assert torch.equal(deeper(ones), expected)


# the law of parsimony

D, K, ETA, STEPS = 30, 3, 0.05, 2000


def trained(init: str, decay: float, depth: int = 3) -> tuple[DeepLinearNet, DeepLinearNet]:
    """The network at the start and after full-batch gradient descent on ½‖W_L…W_1X − ΦX‖², XXᵀ = I, ‖Φ‖₂ = 1."""
    before, after = net(D, init=init, depth=depth), net(D, init=init, depth=depth)
    head = head_of(after, K)
    rng = np.random.default_rng(4)
    x = torch.tensor(np.linalg.qr(rng.normal(size=(D, D)))[0])
    phi = rng.normal(size=(K, D))
    y = x @ torch.tensor(phi / np.linalg.norm(phi, 2)).mT
    optimizer = torch.optim.SGD([*after.parameters(), *head.parameters()], lr=ETA, weight_decay=decay)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (0.5 * (head(after(x)) - y).square().sum()).backward()
        optimizer.step()
    return before, after


def stays(before: np.ndarray, after: np.ndarray, decay: float) -> tuple[int, np.ndarray]:
    """How many singular values are ρ(t) = ε(1−ηλ)^t to 1e-12, and the spectrum of W(t) − (1−ηλ)^t·W(0)."""
    shrink = (1 - ETA * decay) ** STEPS
    sigma = np.linalg.svd(after, compute_uv=False)
    moved = np.linalg.svd(after - shrink * before, compute_uv=False)
    return int((np.abs(sigma - EPS * shrink) <= 1e-12).sum()), moved


@pytest.mark.parametrize(("decay", "depth"), [(0.0, 3), (1e-3, 3), (0.0, 2)])
def test_all_but_2k_singular_values_stay_in_every_step(decay, depth):
    before, after = trained("orthogonal", decay, depth)
    for start_layer, end_layer in zip(before.layers, after.layers, strict=True):
        stayed, moved = stays(start_layer.weight.detach().numpy(), end_layer.weight.detach().numpy(), decay)
        assert stayed == D - 2 * K
        assert (moved > 1e-8).sum() == 2 * K
        assert moved[2 * K - 1] > 1e-6, "not trained long enough to say"


def test_from_a_gaussian_start_more_than_2k_move():
    before, after = trained("gaussian", 0.0)
    for start_layer, end_layer in zip(before.layers, after.layers, strict=True):
        stayed, moved = stays(start_layer.weight.detach().numpy(), end_layer.weight.detach().numpy(), 0.0)
        assert stayed < D - 2 * K
        assert (moved > 1e-8).sum() > 2 * K


class Slope:
    """y = 2·x₁ for vectors of four numbers."""

    spec = TaskSpec(
        name="toy/slope", version=1, modality="vector", num_classes=0, metrics=("mse",), primary=("mse",), shape=(4,)
    )
    inputs = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    rows = Arrays(inputs, 2 * inputs[:, 0])
    dataset = Dataset(train=rows, evaluation={"dev": rows}, source="embedded", revision="1")

    def datamodule(self, dataset: Dataset, backbone: Any, spec: Any) -> ArrayDataModule:
        return ArrayDataModule(self.spec, dataset, spec)


def test_one_number_is_learned_without_a_bias(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(backbone=open_backbone("dln", DLNConfig(depth=2)), tasks={"toy/slope": Slope()})
    run = lab.run(lab.spec("full", task="toy/slope", lr=3e-2, max_steps=100))
    assert run.method.head.bias is None
    assert run.losses[-1] < 1e-2 < run.losses[0]
