"""Deep LoRA against its theory: orthogonal starts, the outer factors of the compressed form, and its error bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group
from torch import Tensor, nn

from bench.api.lowrank.factored import FactoredLinear
from bench.backbones import open_backbone
from bench.config.sections import OptimConfig
from bench.core.errors import UsageError
from bench.records.data import DataRequest
from methods.deeplora.method import outer_factors
from methods.full.config import FullConfig
from tasks.glue.task import GLUE

COMPRESSED = {"form": "compressed", "rank": 4}
WIDTH = 32


def rotation(n: int, seed: int) -> Tensor:
    """A random orthogonal matrix, by scipy."""
    return torch.from_numpy(ortho_group.rvs(n, random_state=seed))


def product(factors: list[Tensor]) -> Tensor:
    """F_L·…·F_1 of [F_1, …, F_L]."""
    out = factors[0]
    for factor in factors[1:]:
        out = factor @ out
    return out


def angle(inside: Tensor, span: Tensor) -> float:
    """Largest principal angle between `inside` and the subspace that holds it."""
    return float(np.max(subspace_angles(inside.detach().numpy(), span.detach().numpy())))


def top(gradient: Tensor, k: int) -> tuple[Tensor, Tensor]:
    u, _, vt = torch.linalg.svd(gradient.double(), full_matrices=False)
    return u[:, :k], vt[:k].mT


def orthonormal(matrix: Tensor, tolerance: float = 1e-10) -> bool:
    return bool((matrix.mT @ matrix - torch.eye(matrix.shape[1])).abs().max() < tolerance)


D, RANK, DEPTH, EPSILON, ETA, STEPS = 30, 3, 3, 0.5, 0.05, 500


def network(factors: list[Tensor]) -> FactoredLinear:
    """The suite's own layer over a weight of zeros."""
    base = nn.Linear(D, D, bias=False, dtype=torch.float64)
    nn.init.zeros_(base.weight)
    return FactoredLinear(base, factors)


def descend(layer: FactoredLinear, trained: list[nn.Parameter], target: Tensor, decay: float) -> list[Tensor]:
    """End-to-end matrices before each of 500 steps of gradient descent on ½‖f − Φ‖²_F, and after the last."""
    optimizer = torch.optim.SGD(trained, lr=ETA, weight_decay=decay)
    eye = torch.eye(D, dtype=torch.float64)
    path: list[Tensor] = []
    for _ in range(STEPS + 1):
        f = layer(eye).mT
        path.append(f.detach().clone())
        optimizer.zero_grad()
        ((f - target).square().sum() / 2).backward()
        optimizer.step()
    return path


def squared_errors(full: list[Tensor], outer: tuple[Tensor, Tensor], target: Tensor, decay: float) -> np.ndarray:
    left, right = outer
    inner = [torch.eye(2 * RANK, dtype=torch.float64) * EPSILON for _ in range(DEPTH)]
    layer = network([right.mT, *inner, left])
    path = descend(layer, list(layer.factors)[1:-1], target, decay)
    return np.array([float((f - c).square().sum()) for f, c in zip(full, path, strict=True)])


def bulk(decay: float) -> np.ndarray:
    """∏ρ_l(t)² where ρ_l ← ρ_l(1 − ηλ − η·∏_{k≠l}ρ_k²), the singular values that no target moves."""
    rho = np.full(DEPTH, EPSILON)
    values: list[float] = []
    for _ in range(STEPS + 1):
        values.append(float(np.prod(rho) ** 2))
        others = np.array([np.prod(np.delete(rho, layer) ** 2) for layer in range(DEPTH)])
        rho = rho * (1 - ETA * decay - ETA * others)
    return np.array(values)


@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_compressed_factorisation_tracks_the_full_one(decay: float) -> None:
    target = rotation(D, 100)[:, :RANK] @ torch.diag(torch.tensor([1.0, 0.8, 0.6])).double() @ rotation(D, 101)[:RANK]
    start = [rotation(D, seed) for seed in range(DEPTH)]
    layer = network([EPSILON * w for w in start])
    full = descend(layer, list(layer.factors), target, decay)
    # from the gradient of the target term alone: the residual at the start has full rank
    outer = outer_factors(-target, product(start), RANK)
    errors, bound = squared_errors(full, outer, target, decay), (D - 2 * RANK) * bulk(decay)
    assert (full[-1] - target).square().sum() < 0.1 * target.square().sum(), "trained long enough to mean something"
    assert (errors <= bound * (1 + 1e-9) + 1e-12).all()
    assert (errors <= (D - 2 * RANK) * EPSILON ** (2 * DEPTH) + 1e-12).all()
    assert errors == pytest.approx(bound, rel=1e-6), "and the bound is met with equality"

    # negative controls: the bound breaks between random outer factors, and with one column turned away
    _, right = outer
    some = rotation(D, 200)[:, : 2 * RANK]
    one_off = torch.cat([right[:, 1:], some[:, :1] - right @ (right.mT @ some[:, :1])], dim=1)
    one_off[:, -1] /= one_off[:, -1].norm()
    for wrong in (some, one_off):
        assert orthonormal(wrong)
        assert (squared_errors(full, (product(start) @ wrong, wrong), target, decay) > bound * (1 + 1e-9) + 1e-12).any()


@pytest.mark.parametrize(("m", "n"), [(384, 1536), (1536, 384), (64, 64)])
@pytest.mark.parametrize("k", [1, 4])
def test_outer_factors_of_a_full_rank_gradient(m: int, n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(m + k)
    gradient = torch.randn(m, n, generator=generator, dtype=torch.float64)
    thin = np.linalg.qr(torch.randn(max(m, n), min(m, n), generator=generator, dtype=torch.float64).numpy())[0]
    start = torch.from_numpy(thin if m >= n else thin.T.copy())
    left, right = outer_factors(gradient, start, k)
    assert left.shape == (m, 2 * k) and right.shape == (n, 2 * k)
    assert orthonormal(left) and orthonormal(right)
    u, v = top(gradient, k)
    for inside, span in [(v, right), (start.mT @ u, right)] if m >= n else [(u, left), (start @ v, left)]:
        assert angle(inside, span) < 1e-6
    one, other = (left, start @ right) if m >= n else (right, start.mT @ left)
    assert torch.allclose(one, other, rtol=0, atol=1e-12)
    if m == n:
        assert angle(u, left) < 1e-6 and angle(v, right) < 1e-6, "the gradient's top k directions pass"


@pytest.mark.parametrize(("m", "n"), [(40, 24), (24, 40), (32, 32)])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_implicit_construction_is_the_explicit_one(m: int, n: int, depth: int) -> None:
    """Full-width factors stored, G = ∂loss/∂W_1 by autograd through their product: the same two subspaces."""
    k, epsilon, w = 3, 1e-3, max(m, n)
    generator = torch.Generator().manual_seed(depth)
    weight, x, y = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((m, n), (n, 50), (m, 50)))

    def loss(update: Tensor) -> Tensor:
        return (torch.tanh((weight + update) @ x) - y).square().mean()

    turns = [rotation(w, 10 * depth + i) for i in range(depth)]
    turns[0], turns[-1] = turns[0][:, :n], turns[-1][:m]  # W_1 (w, n) and W_L (m, w)
    factors = [(epsilon * turn).requires_grad_() for turn in turns]
    update = product(factors)
    loss(update).backward()
    begun = update.detach() / epsilon**depth
    if m >= n:
        u, v = top(factors[0].grad, k)
        right = torch.from_numpy(np.linalg.qr(np.hstack([v, factors[0].detach().mT @ u / epsilon]))[0])
        left = begun @ right
    else:
        u, v = top(factors[-1].grad, k)
        left = torch.from_numpy(np.linalg.qr(np.hstack([u, factors[-1].detach() @ v / epsilon]))[0])
        right = begun.mT @ left

    still = torch.zeros(m, n, dtype=torch.float64, requires_grad=True)
    loss(still).backward()
    ours = outer_factors(still.grad, begun, k)
    assert angle(left, ours[0]) < 1e-5
    assert angle(right, ours[1]) < 1e-5
    assert angle(rotation(m, 1)[:, : 2 * k], ours[0]) > 0.1, "a random subspace is far from it"


def test_a_gradient_of_rank_k_gives_the_row_space_of_the_stack() -> None:
    """[G ; GᵀW_1(0)] of the paper, which holds where rank G = k."""
    k, n = 3, 30
    first, rest = rotation(n, 1), rotation(n, 2)
    gradient = rotation(n, 3)[:, :k] @ torch.diag(torch.tensor([3.0, 2.0, 1.0])).double() @ rotation(n, 4)[:k]
    of_first = rest.mT @ gradient  # ∂loss/∂W_1 up to a power of ε
    stack = torch.cat([of_first, of_first.mT @ first])
    _, rows = top(stack, 2 * k)
    _, right = outer_factors(gradient, rest @ first, k)
    assert angle(rows, right) < 1e-6


def test_a_rank_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="exceeds"):
        outer_factors(torch.ones(6, 40), torch.ones(6, 40), 4)


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("rank", [8, 48, None])
@pytest.mark.parametrize("target", ["qv", "all-linear"])
def test_full_form_starts_orthogonal_at_scale(lab: Any, depth: int, rank: int | None, target: str) -> None:
    epsilon = 0.1
    options = {"depth": depth, "rank": rank, "target": target, "init_scale": epsilon}
    _, method = lab.build(lab.spec("deeplora", options=options))
    shapes: set[tuple[int, int]] = set()
    for _, layer in method.layers():
        m, n = layer.base.weight.shape
        w = rank or max(m, n)
        assert [tuple(f.shape) for f in layer.factors] == [(w, n), *[(w, w)] * (depth - 2), (m, w)]
        for factor in layer.factors:
            sigma = np.linalg.svd(factor.detach().numpy(), compute_uv=False)
            assert sigma == pytest.approx(epsilon, rel=1e-5)
        assert np.linalg.norm(layer.delta().dense().numpy(), 2) == pytest.approx(epsilon**depth, rel=1e-4)
        shapes.add((m, n))
    assert len(shapes) == (3 if target == "all-linear" else 1)


def test_compressed_form_starts_tiny_around_the_gradients_subspaces(lab: Any) -> None:
    """V_k in span(Right) and U_k in span(Left), for the plain network's own gradient on the first batch."""
    spec = lab.spec("deeplora", options={**COMPRESSED, "target": "all-linear", "depth": 4, "init_scale": 0.1})
    _, method = lab.build(spec)
    data, plain = lab.build(spec.with_(method="full").with_options(method=FullConfig()))
    plain.eval().loss(data.first_batch()).backward()
    assert len(data.first_batch()["labels"]) == spec.batch_size
    for name, layer in method.layers():
        left, right = layer.factors[-1].detach(), layer.factors[0].detach().mT
        assert orthonormal(left, 1e-5) and orthonormal(right, 1e-5)
        assert len(layer.factors) == 6
        assert all(torch.equal(f, 0.1 * torch.eye(4)) for f in list(layer.factors)[1:-1])
        u, v = top(plain.backbone.get_submodule(name).weight.grad, 2)
        m, n = layer.base.weight.shape
        assert m > n or angle(u, left) < 1e-2
        assert m < n or angle(v, right) < 1e-2
        assert np.linalg.norm(layer.delta().dense().numpy(), 2) == pytest.approx(1e-4, rel=1e-4)
        assert layer.base.weight.grad is None and not layer.base.weight.requires_grad


def test_the_gradient_is_one_of_evaluation_mode(lab: Any) -> None:
    def outer(**changes: Any) -> list[Tensor]:
        _, method = lab.build(lab.spec("deeplora", options=COMPRESSED, **changes))
        return [layer.factors[i].detach() for _, layer in method.layers() for i in (0, -1)]

    noisy = outer(head={"dropout": 0.9}, backbone={"dropout": 0.5})
    assert all(torch.equal(a, b) for a, b in zip(outer(), noisy, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(outer(), outer(seed=1), strict=True))


@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_outer_factors_learn_at_gamma_times_the_rate(lab: Any, gamma: float) -> None:
    spec = lab.spec("deeplora", options={**COMPRESSED, "gamma": gamma, "init_scale": 0.3, "depth": 5}, max_steps=4)
    run = lab.run(spec.with_options(optim=OptimConfig(schedule="constant", warmup=0.0)))
    layers = [name for name, _ in run.method.layers()]
    outer = {f"backbone.{name}.factors.{i}" for name in layers for i in (0, 6)}
    now = dict(run.method.named_parameters())
    moved = {n for n in outer if not torch.equal(now[n], run.start[n])}
    assert moved == (outer if gamma else set())
    groups = run.method.param_groups()
    scales = {id(p): group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    assert all(scales.get(id(now[n]), 0.0) == gamma for n in outer)
    assert all(scale == 1.0 for n, p in now.items() if n not in outer and (scale := scales.get(id(p), 1.0)))
    rates = [group["lr"] for group in run.method.trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([spec.lr, spec.lr * gamma] if gamma else [spec.lr])
    trained = sum(p.numel() for n, p in now.items() if p.requires_grad and not n.startswith("head"))
    assert trained == len(layers) * (5 * 4**2 + (2 * 4 * WIDTH if gamma else 0))


UNDEFINED = [{"depth": 1}, {"rank": 0}, {"rank": -1}, {**COMPRESSED, "rank": 3}, {**COMPRESSED, "rank": None}]


@pytest.mark.parametrize("options", UNDEFINED)
def test_what_the_equations_do_not_define_is_refused(lab: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        lab.build(lab.spec("deeplora", options=options))


def test_frozen_outer_factors_are_part_of_the_export(lab: Any) -> None:
    """ΔW cannot be had without them, whatever they were started from."""
    options = {"form": "compressed", "rank": 4, "gamma": 0.0}
    _, method = lab.build(lab.spec("deeplora", options=options))
    exported = method.export()
    _, other = lab.build(lab.spec("deeplora", options=options, seed=5))
    assert set(exported) == {n for n, _ in method.named_parameters() if ".factors." in n or n.startswith("head.")}
    other.load_state_dict({**other.state_dict(), **exported})
    for (_, ours), (_, theirs) in zip(method.deltas(), other.deltas(), strict=True):
        assert torch.equal(ours.dense(), theirs.dense())


def test_an_update_that_stays_at_its_start_is_said_so(lab: Any) -> None:
    still = lab.run(lab.spec("deeplora", lr=1e-6, max_steps=5))
    assert any("barely left its start in 4 of 4 layers" in warning for warning in still.result.warnings)
    assert all(r.norm < 1e-3 for r in still.result.ranks)


@pytest.mark.parametrize("options", [{}, COMPRESSED], ids=["full", "compressed"])
def test_deeplora_leaves_its_start_within_fifty_steps(lab: Any, options: dict[str, Any]) -> None:
    run = lab.run(lab.spec("deeplora", options=options, max_steps=50))
    assert len(run.result.ranks) == 4
    assert min(r.norm for r in run.result.ranks) >= 1e-3
    assert not run.result.warnings


@pytest.mark.slow
def test_deeplora_leaves_its_start_on_minilm(make_lab: Callable[..., Any]) -> None:
    cola = GLUE("cola")
    cola.dataset = cola.open(DataRequest(data="embedded"))  # type: ignore[attr-defined]
    lab = make_lab(backbone=open_backbone("minilm", {}), tasks={"glue/cola": cola})
    run = lab.run(lab.spec("deeplora", task="glue/cola", max_steps=50))
    assert len(run.result.ranks) == 12
    assert min(r.norm for r in run.result.ranks) >= 1e-3
    assert not run.result.warnings
