"""Dropout of a factorisation is the nuclear norm's penalty: its closed forms against the method, exact and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.backbones import open_backbone
from bench.backbones.dln import DLNConfig
from bench.records.data import DataRequest
from tasks.synthetic.task import Synthetic, SyntheticConfig

K = 4
"""Width k of the factors, and their columns."""
OPTIMUM = {
    0.05: (3.58333333, 2.58333333, 1.58333333, 0.58333333),
    0.25: (2.71428571, 1.71428571, 0.71428571, 0.0),
    1.0: (1.66666667, 0.66666667, 0.0, 0.0),
}
"""Singular values of the best U·Vᵀ for X = diag(4, 3, 2, 1) by c = λ/k: (σ − μ)₊, μ = c/(1 + cρ)·Σ_{i ≤ ρ} σ_i with the
largest ρ for which σ_ρ > μ (Cavazza et al. 2018)."""


@pytest.fixture(scope="module")
def factors(make_lab: Callable[..., Any]) -> Callable[..., Any]:
    """A lab of U·Vᵀ, a deep linear network of two matrices, and of a matrix to factorise."""

    def lab(*, start: float = 1.0, **options: Any) -> Any:
        task: Any = Synthetic("factorization")
        task.dataset = task.open(DataRequest(config=SyntheticConfig(**options)))
        backbone = open_backbone("dln", DLNConfig(depth=2, width=K, init="gaussian", init_scale=start))
        return make_lab(backbone=backbone, tasks={task.spec.name: task})

    return lab


def spec(lab: Any, rate: float, **changes: Any) -> Any:
    given = {"task": "synthetic/factorization", "options": {"rate": rate}, "precision": "64-true"}
    return lab.spec("dropout", **given | changes)


def product_of(method: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """U (m, k) and V (n, k)."""
    return method.head.weight.detach(), method.backbone.layers[0].weight.detach().mT


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[torch.Tensor], None]]:
    """Makes every dropout that acts take a given mask (k,) of zeros and ones, once per forward pass."""
    chosen: list[torch.Tensor] = []
    original = F.dropout

    def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if not training or p == 0:
            return original(x, p, training, inplace)
        return x * chosen.pop() / (1 - p)

    monkeypatch.setattr(F, "dropout", dropout)
    yield chosen.append
    assert not chosen, "a mask was not used"


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_the_expected_loss_is_the_penalised_one(factors: Any, force: Any, rate: float) -> None:
    """E‖X − U·diag(b)·Vᵀ/θ‖² = ‖X − UVᵀ‖² + (1 − θ)/θ·Σ‖u_i‖²‖v_i‖², by all 2^k masks through the method's own loss."""
    lab = factors(size=5, outputs=6, rank=3, seed=2)
    data, method = lab.build(spec(lab, rate, batch_size=5))
    method.double()
    batch = data.first_batch()
    batch["inputs"] = {"x": batch["inputs"]["x"].double()}
    assert len(batch["labels"]) == 5
    expected, theta = 0.0, 1 - rate
    for kept in product((0.0, 1.0), repeat=K):
        force(torch.tensor(kept, dtype=torch.float64))
        ones = sum(kept)
        expected += theta**ones * rate ** (K - ones) * 5 * method.loss(batch).item()  # of all columns
    matrix = torch.zeros(6, 5, dtype=torch.float64)
    matrix[:, batch["inputs"]["x"].argmax(1)] = batch["labels"].double().mT
    u, v = product_of(method)
    penalty = (1 - theta) / theta * (u.square().sum(0) * v.square().sum(0)).sum()
    want = float((matrix - u @ v.mT).square().sum() + penalty)
    assert expected == pytest.approx(want, rel=1e-12, abs=0)
    assert float(penalty) > 0.05 * want


def test_real_masks_are_bernoulli_and_scaled(factors: Any) -> None:
    """What reaches U in training is 0 with chance 1 − θ, else x/θ; in evaluation it is x."""
    lab = factors(size=4, repeats=5000, seed=2)
    data, method = lab.build(spec(lab, 0.3, batch_size=20000))
    inputs = data.first_batch()["inputs"]
    reached: list[torch.Tensor] = []
    method.head.register_forward_hook(lambda module, given, out: reached.append(given[0].detach()))
    torch.manual_seed(0)
    method.train()(inputs)
    method.eval()(inputs)
    noisy, plain = reached
    share = noisy / plain
    dropped = share == 0
    torch.testing.assert_close(share[~dropped], torch.full_like(share[~dropped], 1 / 0.7))
    chance = dropped.double().mean(0)
    assert (chance - 0.3).abs().max() < 5 * (0.3 * 0.7 / 20000) ** 0.5
    both = (dropped[:, 0] & dropped[:, 1]).double().mean()
    assert abs(float(both) - 0.09) < 5 * (0.09 * 0.91 / 20000) ** 0.5


def train(factors: Any, rate: float, *, copies: int, steps: int = 3000) -> tuple[Any, list[float]]:
    """Train U and V; every step averages the masks of all copies of a column. Gives the singular values of U·Vᵀ."""
    lab = factors(size=4, spectrum="4,3,2,1", basis="diagonal", repeats=copies)
    sgd = {"name": "sgd", "schedule": "linear", "warmup": 0.0, "clip": 0.0}
    run = lab.run(spec(lab, rate, lr=0.15, optim=sgd, max_steps=steps, batch_size=4 * copies))
    u, v = product_of(run.method)
    return run, torch.linalg.svdvals(u.double() @ v.double().mT).tolist()


@pytest.mark.parametrize("c", OPTIMUM)
def test_training_reaches_the_closed_form(factors: Any, c: float) -> None:
    run, found = train(factors, 1 - 1 / (1 + c * K), copies=256)
    assert found == pytest.approx(OPTIMUM[c], abs=0.04), "a hundredth of σ₁"
    u, v = product_of(run.method)
    lengths = u.norm(dim=0) * v.norm(dim=0)
    assert lengths.tolist() == pytest.approx([sum(OPTIMUM[c]) / K] * K, abs=0.05), "all products of lengths alike"
    # the probe, which no penalty holds back, finds all of X but the directions that dropout has taken from V
    lost = sum(s**2 for s, kept in zip((4, 3, 2, 1), OPTIMUM[c], strict=True) if not kept)
    probe = [row.metrics["dev"]["probe_relative_error"] for row in run.result.evaluations]
    assert len(probe) == 10
    assert probe[-1] == pytest.approx((lost / 30) ** 0.5, abs=5e-3)


def test_without_dropout_the_matrix_itself_is_reached(factors: Any) -> None:
    _, found = train(factors, 0.0, copies=1, steps=1000)
    assert found == pytest.approx((4, 3, 2, 1), abs=1e-3)
