"""Low-rank training against numpy's SVD, the explicit product, and the count of parameters that it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from projected_reference import TASK
from torch import Tensor, nn

from bench.config.sections import HeadConfig, OptimConfig, PenaltyConfig
from bench.core.errors import UsageError
from bench.training.regularizers import nuclear_penalty
from methods.lowrank.method import FactoredLayer, LowRankTraining

RANK = 3
CONVOLUTIONS: dict[str, nn.Module] = {
    "plain": nn.Conv2d(6, 9, 3),
    "strided": nn.Conv2d(6, 9, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(6, 9, 3, dilation=2, padding="same", bias=False),
    "circular": nn.Conv2d(6, 9, (3, 5), padding=(1, 2), padding_mode="circular"),
    "patches": nn.Conv2d(6, 9, 4, stride=4),
    "line": nn.Conv1d(6, 9, 5, padding=2),
    "volume": nn.Conv3d(6, 9, 3),
}
SIZES = {"line": (2, 6, 16), "volume": (2, 6, 5, 6, 7)}


class Odd(nn.Linear):
    """Another layer that calls itself linear."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class Network(nn.Module):
    """(B, 3, 16, 16) → (B, 20), with layers of every kind that stays whole."""

    width = 20

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.transposed = nn.ConvTranspose2d(12, 12, 2, stride=2)
        self.block = nn.Conv2d(12, 24, 3, stride=4, padding=1)
        self.odd = Odd(24, 24)
        self.small = nn.Linear(24, 3)
        self.out = nn.Linear(24, 20)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.stem(x)))
        hidden = self.block(torch.relu(self.transposed(torch.relu(self.grouped(hidden)))))
        hidden = self.odd(hidden.mean((2, 3)))
        return self.out(torch.relu(hidden)) + self.small(hidden).sum(1, keepdim=True)


TAKEN = {"stem": (12, 27), "block": (24, 108), "out": (20, 24)}


def method(**options: Any) -> LowRankTraining:
    torch.manual_seed(0)
    config = LowRankTraining.Config(**{"rank": RANK, **options})
    made = LowRankTraining(Network(), TASK, config, head=HeadConfig(), optim=OptimConfig(), lr=1e-2, seed=3)
    made.adapt({})
    return made


def learn(made: LowRankTraining, steps: int) -> list[float]:
    """Losses of some steps on one batch: which of two quarters is brighter."""
    x = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    labels = (x[:, :, :8, :8].mean((1, 2, 3)) > x[:, :, 8:, 8:].mean((1, 2, 3))).long()
    optimizer = torch.optim.AdamW(made.parameters(), lr=made.lr)
    losses: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = made.loss({"inputs": {"x": x}, "labels": labels})
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def moved(layer: FactoredLayer) -> FactoredLayer:
    """Far from its start."""
    for number, parameter in enumerate(layer.parameters()):
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)).to(parameter))
    return layer


def product(layer: FactoredLayer) -> Tensor:
    """The explicit U·V, from the layer's parameters."""
    first, second = (module.weight for module in layer)
    return (second.reshape(len(second), -1) @ first.reshape(len(first), -1)).detach()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_two_convolutions_are_the_one_of_the_product(name: str) -> None:
    base: Any = CONVOLUTIONS[name].double()
    layer = moved(FactoredLayer(base, RANK))
    x = torch.randn(SIZES.get(name, (2, 6, 12, 12)), generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        base.weight.copy_(product(layer).view_as(base.weight))
        if base.bias is not None:
            base.bias.copy_(layer[1].bias)
        assert torch.allclose(layer(x), base(x), rtol=0, atol=1e-12)
        assert torch.allclose(layer.weight, base.weight, rtol=0, atol=1e-12)
    assert sum(p.numel() for p in layer.parameters()) < sum(p.numel() for p in base.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_two_linear_layers_are_the_one_of_the_product(bias: bool) -> None:
    layer = moved(FactoredLayer(nn.Linear(14, 10, bias=bias).double(), RANK))
    x = torch.randn(2, 5, 14, dtype=torch.float64)
    assert torch.allclose(layer(x), F.linear(x, product(layer), layer.bias), rtol=0, atol=1e-12)
    assert (layer.bias is None) == (not bias)


def test_torchs_encoder_layer_reads_weights_past_forward() -> None:
    block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
    x = torch.randn(2, 5, 16)
    block.linear1, block.linear2 = FactoredLayer(block.linear1, RANK), FactoredLayer(block.linear2, RANK)
    want = block.train()(x)
    with torch.no_grad():  # where torch takes its fused path
        assert torch.allclose(block.eval()(x), want, rtol=0, atol=1e-5)


def test_the_start_is_the_best_approximation_of_its_rank_and_balanced() -> None:
    made = method()
    torch.manual_seed(0)
    plain = Network()
    assert {name for name, _ in made.layers()} == set(TAKEN)
    for name, layer in made.layers():
        base: Any = plain.get_submodule(name)
        u, sigma, vt = np.linalg.svd(base.weight.detach().double().flatten(1).numpy(), full_matrices=False)
        best = (u[:, :RANK] * sigma[:RANK]) @ vt[:RANK]
        assert np.abs(product(layer).numpy() - best).max() < 1e-6
        assert torch.equal(layer.bias, base.bias)
        left, right = layer.factors()
        assert torch.allclose(left.mT @ left, torch.tensor(np.diag(sigma[:RANK])).float(), rtol=0, atol=1e-5)
        assert torch.allclose(right @ right.mT, torch.tensor(np.diag(sigma[:RANK])).float(), rtol=0, atol=1e-5)


def test_parameters_fall_by_the_formula() -> None:
    made, plain = method(), sum(p.numel() for p in Network().parameters())
    fewer = sum(m * n - RANK * (m + n) for m, n in TAKEN.values())
    head = 2 * 20 + 2
    want = plain - fewer + head
    assert made.parameter_counts() == {"total": want, "trainable": want, "head": head}
    assert fewer > 2000


def test_what_stays_whole_is_named_with_the_reason() -> None:
    rows = method().report()["whole_layers"]
    assert [row["layer"] for row in rows] == ["grouped", "transposed", "odd", "small"]
    assert [row["shape"] for row in rows] == ["12×36", "12×48", "24×24", "3×24"]
    assert [row["whole_because"] for row in rows] == ["3 groups", "a ConvTranspose2d", "a Odd", "r·(m + n) ≥ m·n"]
    assert method().report()["factored_layers"] == 3
    assert method(target="block|out").report() == {"factored_layers": 2}


def test_a_rank_at_the_break_even_stays_whole() -> None:
    """20×24: r·44 < 480 for r = 10, not for 11."""
    assert {name for name, _ in method(rank=10, target="out").layers()} == {"out"}
    with pytest.raises(UsageError, match="makes no layer smaller") as refused:
        method(rank=11, target="out")
    assert "out (20×24" in refused.value.known


@pytest.mark.parametrize(
    ("target", "says"), [("(", "not a regular expression"), ("nothing", "matches no linear layer")]
)
def test_a_target_that_names_nothing_is_refused(target: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        method(target=target)


def test_delta_is_how_the_product_moved() -> None:
    made = method()
    start = {name: product(layer) for name, layer in made.layers()}
    assert all(delta.dense().abs().max() < 1e-6 for _, delta in made.deltas())
    losses = learn(made, 40)
    assert losses[-1] < losses[0] / 2
    for (name, delta), (_, layer) in zip(made.deltas(), made.layers(), strict=True):
        difference = product(layer) - start[name]
        assert difference.norm() > 0.05
        assert delta.shape == TAKEN[name] and delta.nominal == min(2 * RANK, *TAKEN[name])
        assert torch.allclose(delta.dense(), difference, rtol=0, atol=1e-5)
        sigma = np.linalg.svd(difference.double().numpy(), compute_uv=False)
        assert np.allclose(delta.singular_values()[:RANK].numpy(), sigma[:RANK], rtol=0, atol=1e-5)


def test_everything_else_trains_too() -> None:
    made = method()
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    learn(made, 3)
    assert all(not torch.equal(p, before[name]) for name, p in made.named_parameters())


@pytest.mark.parametrize("of", ["delta", "weight"])
def test_a_nuclear_penalty_is_that_of_the_product(of: Any) -> None:
    made = method()
    start = {name: product(layer) for name, layer in made.layers()}
    for _, layer in made.layers():
        moved(layer)
    penalty = nuclear_penalty(made, PenaltyConfig(nuclear=0.5, of=of))()
    shift = start if of == "delta" else {name: torch.zeros_like(w) for name, w in start.items()}
    want = sum(np.linalg.norm((product(m) - shift[n]).double().numpy(), "nuc") for n, m in made.layers())
    assert penalty.item() == pytest.approx(0.5 * want, rel=1e-5)
    penalty.backward()
    assert all(part.weight.grad.any() for _, layer in made.layers() for part in layer)
