"""Penalties against numpy's singular values, finite differences, and torch's nuclear norm of what a layer computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.api.method import Method
from bench.config.sections import PenaltyConfig
from bench.core import registry
from bench.core.errors import UsageError
from bench.training.regularizers import factor_norm, frobenius, nuclear_norm, nuclear_penalty

SHAPES = [
    [(7, 5)],
    [(5, 7)],
    [(7, 3), (3, 5)],
    [(4, 6), (6, 5)],
    [(7, 3), (3, 3), (3, 5)],
    [(6, 2), (2, 2), (2, 2), (2, 9)],
]


def random(shapes: list[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def numpys(factors: list[np.ndarray]) -> float:
    return float(np.linalg.norm(np.linalg.multi_dot(factors) if len(factors) > 1 else factors[0], "nuc"))


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_value_and_gradient_are_those_of_numpys_nuclear_norm(shapes: list[tuple[int, int]]) -> None:
    factors = random(shapes)
    value = nuclear_norm(factors)
    value.backward()
    plain = [f.detach().numpy().copy() for f in factors]
    assert value.item() == pytest.approx(numpys(plain), rel=1e-12)
    step = 1e-6
    for factor, array in zip(factors, plain, strict=True):
        found = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            array[place] += step
            more = numpys(plain)
            array[place] -= 2 * step
            found[place] = (more - numpys(plain)) / (2 * step)
            array[place] += step
        assert factor.grad is not None
        np.testing.assert_allclose(factor.grad.numpy(), found, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_u_times_v_transposed_and_a_subgradient_where_the_rank_is_not_full() -> None:
    u, v = random([(8, 2), (2, 6)])
    matrix = (u @ v).detach().requires_grad_()  # rank 2 of 6
    nuclear_norm([matrix]).backward()
    left, _, right = np.linalg.svd(matrix.detach().numpy(), full_matrices=False)
    assert matrix.grad is not None
    np.testing.assert_allclose(matrix.grad.numpy(), left[:, :2] @ right[:2], atol=1e-10)
    assert np.linalg.norm(matrix.grad.numpy(), 2) <= 1 + 1e-12


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_at_the_start_of_lora_there_is_a_gradient_and_it_is_zero(zero: int) -> None:
    factors = [f.detach() * (i != zero and zero < 2) for i, f in enumerate(random([(7, 3), (3, 5)]))]
    for norm in (lambda *f: nuclear_norm(f), factor_norm):
        live = [f.clone().requires_grad_() for f in factors]
        value = norm(*live)
        value.backward()
        assert value.item() == 0
        assert all(f.grad is not None and not f.grad.any() for f in live)


def test_the_bounds_hold_and_meet_the_norm_at_the_balanced_svd() -> None:
    for seed in range(5):
        u, v = random([(7, 4), (4, 5)], seed)
        norm = numpys([u.detach().numpy(), v.detach().numpy()])
        by_hand = sum(np.linalg.norm(u.detach()[:, i]) * np.linalg.norm(v.detach()[i]) for i in range(4))
        assert factor_norm(u, v).item() == pytest.approx(by_hand, rel=1e-12)
        assert frobenius(u, v).item() > by_hand > norm * 1.01
        left, sigma, right = np.linalg.svd((u @ v).detach().numpy(), full_matrices=False)
        balanced = torch.tensor(left * np.sqrt(sigma)), torch.tensor(np.sqrt(sigma)[:, None] * right)
        assert factor_norm(*balanced).item() == pytest.approx(norm, rel=1e-12)
        assert frobenius(*balanced).item() == pytest.approx(norm, rel=1e-12)


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"rank": 3}),
    ("lora", {"init": "pissa", "rank": 3}),
    ("adalora", {"rank": 2}),
    ("deeplora", {"rank": 4}),
    ("deeplora", {"rank": 4, "form": "compressed"}),
    ("full", {}),
]


def by_hand(method: Method, of: str, start: dict[str, Tensor]) -> Tensor:
    """Σ torch's nuclear norm, of what each layer does to the unit vectors; differentiable but where σ = 0."""
    total = torch.zeros((), dtype=torch.float64)
    for name, _ in method.deltas():
        layer = method.backbone.get_submodule(name)
        unit = torch.eye(layer.in_features if hasattr(layer, "in_features") else layer.base.in_features).double()
        weight = (layer(unit) - layer(0 * unit)).mT
        total = total + torch.linalg.matrix_norm(weight - (start[name] if of == "delta" else 0), "nuc")
    return total


@pytest.mark.parametrize("of", ["delta", "weight"])
@pytest.mark.parametrize(("name", "options"), METHODS)
def test_methods_are_penalised_for_what_they_compute(lab: Any, name: str, options: dict[str, Any], of: str) -> None:
    _, method = lab.build(lab.spec(name, options=options))
    method.double().eval()
    start = {n: w.detach().clone() for n, w, _ in method.updates()}
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    config = PenaltyConfig(nuclear=0.3, of=of)  # type: ignore[arg-type]
    value, want = nuclear_penalty(method, config)(), 0.3 * by_hand(method, of, start)
    assert value.item() == pytest.approx(want.item(), rel=1e-6)
    trained = [p for p in method.backbone.parameters() if p.requires_grad]
    ours = torch.autograd.grad(value, trained, allow_unused=True)
    theirs = torch.autograd.grad(want, trained, allow_unused=True)
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None and b.any()]
    assert pairs and all(a is not None and torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in pairs)


def test_dora_is_penalised_for_the_weight_it_computes(lab: Any) -> None:
    """Its forward holds the norm of the rows constant, so gradients differ by design; the value does not."""
    _, method = lab.build(lab.spec("lora", options={"dora": True}))
    method.double().eval()
    start = {n: w.detach().clone() for n, w, _ in method.updates()}
    with torch.no_grad():
        for _, layer in method.layers():
            layer.factors[1].fill_(0.1)
            layer.magnitude.mul_(1.2)
    for of in ("delta", "weight"):
        value = nuclear_penalty(method, PenaltyConfig(nuclear=1.0, of=of))()  # type: ignore[arg-type]
        assert value.item() == pytest.approx(by_hand(method, of, start).item(), rel=1e-6)
        value.backward()
        assert all(
            f.grad is not None and torch.isfinite(f.grad).all() for _, lay in method.layers() for f in lay.factors
        )


@pytest.fixture(scope="module")
def used(lab: Any) -> Callable[..., float]:
    """Mean effective rank of ΔW after 40 steps, run once."""
    found: dict[str, float] = {}

    def run(name: str, **penalty: Any) -> float:
        key = f"{name} {penalty}"
        if key not in found:
            spec = lab.spec(name, penalty=penalty, max_steps=40, lr=1e-3 if name == "full" else 1e-2)
            ranks = lab.run(spec).result.ranks
            found[key] = sum(rank.effective for rank in ranks) / len(ranks)
        return found[key]

    return run


@pytest.mark.parametrize("form", ["exact", "factor", "frobenius"])
def test_a_large_weight_lowers_the_rank_that_lora_uses(used: Callable[..., float], form: str) -> None:
    assert used("lora", nuclear=0.03, form=form) < 0.7 * used("lora")


@pytest.mark.parametrize("name", ["adalora", "full"])
def test_a_large_weight_lowers_the_rank_used(used: Callable[..., float], name: str) -> None:
    assert used(name, nuclear=0.03) < 0.7 * used(name)


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_it_is_added_once_per_global_batch(lab: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """34 examples in batches of 16, whole or in four parts; λ is so large that a multiple of it would show."""
    calls: list[int] = []
    updates = registry.load("methods", name).updates
    monkeypatch.setattr(registry.load("methods", name), "updates", lambda self: (calls.append(1), updates(self))[1])
    runs = [
        lab.run(
            lab.spec(name, max_steps=6, precision="64-true", penalty={"nuclear": 3e-2}, runtime={"micro_batch": micro})
        )
        for micro in (0, 4)
    ]
    assert len(calls) == 2 * (6 + 1), "once when it is checked, once per step"
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-6)
    ours, theirs = (run.method.state_dict() for run in runs)
    assert all(torch.allclose(ours[n].double(), theirs[n].double(), rtol=0, atol=1e-6) for n in ours)
    without = lab.run(lab.spec(name, max_steps=6, precision="64-true")).method.state_dict()
    assert any(not torch.allclose(ours[n].double(), without[n].double(), rtol=0, atol=1e-4) for n in ours)


@pytest.mark.parametrize(
    ("name", "options", "penalty", "known"),
    [
        ("linear", {}, {}, "no weight matrix"),
        ("bitfit", {}, {}, "no weight matrix"),
        ("adapter", {}, {}, "no weight matrix"),
        ("deeplora", {}, {"form": "factor"}, "3 factors"),
        ("deeplora", {"form": "compressed"}, {"form": "frobenius"}, "5 factors"),
        ("full", {}, {"form": "factor"}, "full matrix"),
        ("lora", {"dora": True}, {"form": "factor"}, "full matrix"),
    ],
)
def test_where_it_does_not_apply_it_says_so(
    lab: Any, name: str, options: dict[str, Any], penalty: dict[str, Any], known: str
) -> None:
    with pytest.raises(UsageError, match="penalty") as caught:
        lab.build(lab.spec(name, options=options, penalty={"nuclear": 0.1, **penalty}))
    assert known in caught.value.known and caught.value.todo


@pytest.mark.parametrize(
    "penalty",
    [{"form": "factor"}, {"of": "weight"}, {"nuclear": -1.0}, {"nuclear": 1.0, "of": "weight", "form": "factor"}],
)
def test_options_that_mean_nothing_are_refused(penalty: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="penalty"):
        PenaltyConfig(**penalty)


def test_a_depth_of_two_has_factors_and_the_default_adds_nothing(lab: Any) -> None:
    _, method = lab.build(lab.spec("deeplora", options={"depth": 2}, penalty={"nuclear": 0.1, "form": "factor"}))
    assert len(method.penalties) == 1
    assert lab.build(lab.spec("deeplora"))[1].penalties == []
