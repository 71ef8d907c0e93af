"""GaLore against `galore-torch`, numpy and the rank of what it can reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from galore_torch import GaLoreAdamW as Theirs
from galore_torch.galore_projector import GaLoreProjector
from projected_reference import (
    DECAY,
    LR,
    PROJECTED,
    RANK,
    REFRESH,
    SHAPES,
    SIDES,
    STEPS,
    Network,
    apart,
    goes_on,
    learn,
    method,
    train,
    weights,
)
from torch import Tensor, nn

import methods.galore.method
from bench.api.optimizers import state_bytes
from bench.config.sections import OptimConfig
from bench.core.errors import UsageError
from methods.galore.method import GaLore, GaLoreAdamW, principal

SCALE = 0.25


def ours(trained: Sequence[nn.Parameter], decay: float = DECAY) -> GaLoreAdamW:
    large, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": large, "rank": RANK}, {"params": rest}]
    return GaLoreAdamW(groups, lr=LR, refresh=REFRESH, scale=SCALE, weight_decay=decay)


def theirs(trained: Sequence[nn.Parameter], decay: float = DECAY) -> Theirs:
    projected = {"rank": RANK, "update_proj_gap": REFRESH, "scale": SCALE, "proj_type": "std"}
    groups = [{"params": [*trained], **projected}]
    return Theirs(groups, lr=LR, eps=1e-8, weight_decay=decay, no_deprecation_warning=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_subspace_is_galore_torchs_and_numpys(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tall = shape[0] >= shape[1]
    projector = GaLoreProjector(RANK)
    projector.project(gradient, 0)
    basis = projector.ortho_matrix if tall else projector.ortho_matrix.mT
    found = principal(gradient.mT if tall else gradient, RANK)
    assert found.shape == (RANK, min(shape))
    assert torch.allclose(found.mT @ found, basis.mT @ basis, rtol=0, atol=1e-5)
    u, _, vt = np.linalg.svd(gradient.double().numpy())
    want = vt[:RANK] if tall else u[:, :RANK].T
    assert np.abs((found.mT @ found).numpy() - want.T @ want).max() < 1e-6


@pytest.fixture
def same_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let their new singular vectors, too, take the side of those before; LAPACK's signs would decide else."""
    found = GaLoreProjector.get_orthogonal_matrix

    def signed(self: Any, gradient: Tensor, rank: int, type: str) -> Tensor:
        new, old, along = found(self, gradient, rank, type), self.ortho_matrix, 1 if type == "right" else 0
        return new if old is None else new * (new * old).sum(along, keepdim=True).sign()

    monkeypatch.setattr(GaLoreProjector, "get_orthogonal_matrix", signed)


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("same_signs")
def test_fifty_steps_are_galore_torchs(shape: tuple[int, int], decay: float) -> None:
    """Over two refreshes. torch decays weights before the step, they after it: LR·DECAY of a step apart each time."""
    assert STEPS > 2 * REFRESH
    mine, other = weights([shape]), weights([shape])
    course, want = (train(make(w, decay), w, range(STEPS)) for make, w in ((ours, mine), (theirs, other)))
    assert apart(course, want) < 1e-5
    assert apart(course[:1], course[-1:]) > 1e-3


@pytest.mark.usefixtures("same_signs")
def test_a_convolution_is_the_matrix_of_its_kernels() -> None:
    kernel, matrix = weights([(8, 2, 3, 3)]), weights([(8, 18)])
    with torch.no_grad():
        kernel[0].copy_(matrix[0].view_as(kernel[0]))
    assert apart(train(ours(kernel), kernel, range(STEPS)), _same_noise(matrix, kernel[0].shape)) < 1e-5


def _same_noise(matrix: list[nn.Parameter], shape: torch.Size) -> list[Tensor]:
    """What galore-torch makes of the matrix, with gradients drawn in the kernel's shape."""
    optimizer, course = theirs(matrix), []
    for step in range(STEPS):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(100 * step)).view_as(matrix[0])
        matrix[0].grad = matrix[0].detach() + 2 * noise
        optimizer.step()
        course.append(matrix[0].detach().flatten().clone())
    return course


def test_what_has_no_rank_gets_torchs_adamw() -> None:
    mine, other = weights([(6,), (3, 4)]), weights([(6,), (3, 4)])
    optimizer = GaLoreAdamW([{"params": mine}], lr=LR, refresh=REFRESH, scale=SCALE, weight_decay=DECAY)
    reference = torch.optim.AdamW(other, lr=LR, weight_decay=DECAY)
    assert apart(train(optimizer, mine, range(STEPS)), train(reference, other, range(STEPS))) < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_signs_of_singular_vectors_change_nothing(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, signed = weights([shape]), weights([shape])
    course, draws = train(ours(plain), plain, range(STEPS)), torch.Generator().manual_seed(0)

    def flipped(g_dD: Tensor, rank: int) -> Tensor:
        return principal(g_dD, rank) * (torch.randint(2, (rank, 1), generator=draws) * 2 - 1)

    monkeypatch.setattr(methods.galore.method, "principal", flipped)
    assert apart(course, train(ours(signed), signed, range(STEPS))) < 1e-6


@pytest.mark.parametrize("refreshes", [1, 2, 3])
def test_a_subspace_adds_r_to_the_rank_that_can_be_reached(refreshes: int) -> None:
    trained = weights([(30, 24)], torch.float64)
    start = trained[0].detach().clone()
    train(ours(trained, 0.0), trained, range(refreshes * REFRESH))
    assert torch.linalg.matrix_rank(trained[0] - start, atol=1e-8) == refreshes * RANK


@pytest.mark.parametrize("cut_at", [7, REFRESH, REFRESH + 5])
def test_a_checkpoint_goes_on_bit_for_bit(cut_at: int) -> None:
    assert goes_on(ours, cut_at)


def test_a_gradient_that_is_not_finite_is_left_to_the_loss_to_tell() -> None:
    trained = weights([(12, 7)])
    trained[0].grad = torch.full((12, 7), math.inf)
    ours(trained).step()
    assert trained[0].isnan().all()


def test_layers_are_projected_and_tables_vectors_and_the_head_are_not() -> None:
    made = method(GaLore, rank=4)
    names = {id(p): name.removeprefix("backbone.") for name, p in made.named_parameters()}
    projected, rest = made.param_groups()
    assert {names[id(p)] for p in projected["params"]} == PROJECTED
    assert projected["rank"] == 4
    assert "rank" not in rest
    assert sorted(id(p) for g in (projected, rest) for p in g["params"]) == sorted(names)
    report = {"projected_matrices": 4, "plain_matrices": ["small.weight", "back.weight"]}
    assert made.report() == report | {"trained_without_delta": "attention.in_proj_weight, position"}


def test_the_state_is_as_large_as_the_formula_says() -> None:
    made = method(GaLore, rank=4)
    optimizer, _ = learn(made, 2)
    numbers = sum(4 * min(side) + 2 * 4 * max(side) for side in SIDES.values())
    plain = made.param_groups()[1]["params"]
    assert state_bytes(optimizer) == 4 * (numbers + 2 * sum(p.numel() for p in plain))
    adamw = 2 * 4 * sum(p.numel() for p in made.parameters())
    assert state_bytes(optimizer) < 0.6 * adamw


def test_it_learns_and_keeps_to_its_options() -> None:
    """The options reach the optimiser: another scale or refresh, and the course is another."""
    losses = {str(o): learn(method(GaLore, rank=4, **o), 60)[1] for o in ({}, {"scale": 1.0}, {"refresh": 5})}
    assert all(course[-1] < course[0] / 2 for course in losses.values())
    assert len({course[-1] for course in losses.values()}) == 3


def test_a_rank_that_projects_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="projects nothing") as refused:
        method(GaLore, rank=24)
    assert "24" in refused.value.known
    assert Network.width == 24


def test_another_optimiser_is_refused() -> None:
    with pytest.raises(UsageError, match=r"optim\.name=momentum does not work with GaLore"):
        method(GaLore, optim=OptimConfig(name="momentum"))
