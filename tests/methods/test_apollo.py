"""APOLLO against `apollo-torch` on the same projections, its limit on growth, and the statistics of what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import apollo_torch.random_projector
import pytest
import torch
from apollo_torch import APOLLOAdamW as Theirs
from projected_reference import (
    DECAY,
    LR,
    RANK,
    REFRESH,
    SHAPES,
    SIDES,
    STEPS,
    apart,
    goes_on,
    learn,
    method,
    train,
    weights,
)
from torch import Tensor, nn

from bench.api.optimizers import state_bytes
from methods.apollo.method import APOLLO, GROWTH, APOLLOAdamW, gaussian

SEED, SHIFT = 5, 1000
OPTIONS = {"channel": (RANK, 1.0), "tensor": (1, 4.0)}
"""Rank and scale: APOLLO and APOLLO-Mini."""
each = pytest.mark.parametrize("kind", OPTIONS)


def ours(trained: Sequence[nn.Parameter], kind: Any, decay: float = DECAY) -> APOLLOAdamW:
    rank, scale = OPTIONS[kind]
    large, rest = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": large, "rank": rank}, {"params": rest}]
    options: dict[str, Any] = {"refresh": REFRESH, "scale": scale, "weight_decay": decay}
    return APOLLOAdamW(groups, lr=LR, seed=SEED, scale_type=kind, **options)


def theirs(trained: Sequence[nn.Parameter], kind: str, decay: float = DECAY, **options: Any) -> Theirs:
    rank, scale = OPTIONS[kind]
    projected = {"rank": rank, "scale": scale, "scale_type": kind, "update_proj_gap": REFRESH, "proj": "random"}
    groups = [{"params": [*trained], **projected, "proj_type": "std"}]
    return Theirs(groups, lr=LR, eps=1e-8, weight_decay=decay, **options)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let theirs draw what ours does; their seeds count parameters from 1, and here refreshes in thousands."""

    def draw(shape: tuple[int, int], seed: int, device: Any = None, dtype: Any = None) -> Tensor:
        count, number = divmod(seed, SHIFT)
        rank = min(shape)  # of these shapes
        p = gaussian(SEED, number - 1, count, (rank, max(shape))) * rank**0.5
        return p if shape[0] == rank else p.mT

    monkeypatch.setattr(apollo_torch.random_projector, "stable_randn", draw)
    monkeypatch.setattr(apollo_torch.random_projector, "next_seed", lambda seed: seed + SHIFT)


@each
@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.usefixtures("shared")
def test_fifty_steps_are_apollo_torchs(kind: str, decay: float) -> None:
    """Over two refreshes, several matrices with a projection each, the limiter at work."""
    assert STEPS > 2 * REFRESH
    mine, other, free = weights(SHAPES), weights(SHAPES), weights(SHAPES)
    course = train(ours(mine, kind, decay), mine, range(STEPS))
    want = train(theirs(other, kind, decay), other, range(STEPS))
    unlimited = train(theirs(free, kind, decay, disable_nl=True), free, range(STEPS))
    assert apart(course, want) < 1e-5
    assert apart(course[-1:], unlimited[-1:]) > 1e-3
    assert apart(course[:1], course[-1:]) > 1e-3


@each
def test_an_update_grows_by_one_per_cent_a_step_at_most(kind: str) -> None:
    """Gradients that grow by 30 % a step. Adam's bias correction is not part of what is limited."""
    trained = weights([(12, 7)], torch.float64)
    optimizer, norms, last = ours(trained, kind, 0.0), [], trained[0].detach().clone()
    for step in range(30):
        now = train(optimizer, trained, range(step, step + 1), growth=1.3)[0].view_as(last)
        correction = (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
        norms.append(float((now - last).norm()) / correction)
        last = now
    growth = [after / before for before, after in pairwise(norms)]
    assert max(growth) == pytest.approx(GROWTH, rel=1e-9)
    assert sum(g > GROWTH - 1e-9 for g in growth) > 5


@each
def test_a_matrix_without_a_gradient_at_first_moves_when_it_gets_one(kind: str) -> None:
    """As a residual branch behind a scale that starts at zero; one that had a gradient from the start is no faster."""
    late, prompt = weights([(12, 7)]), weights([(12, 7)])
    optimizer = ours(late, kind, 0.0)
    late[0].grad = torch.zeros(12, 7)
    optimizer.step()
    assert torch.equal(late[0], weights([(12, 7)])[0])
    train(optimizer, late, range(1))
    train(ours(prompt, kind, 0.0), prompt, range(1))
    start = weights([(12, 7)])[0]
    assert (late[0] - start).norm() > 0.3 * (prompt[0] - start).norm() > 0


def test_projections_differ_by_seed_parameter_and_refresh_and_keep_lengths() -> None:
    """Entries N(0, 1/r): E[PᵀP] = I."""
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    drawn = [gaussian(*key, (4, 10)) for key in keys]
    assert torch.equal(drawn[0], gaussian(0, 0, 0, (4, 10)))
    assert all((a - b).abs().min() > 0 for i, a in enumerate(drawn) for b in drawn[:i])
    many = torch.stack([gaussian(0, number, 0, (4, 10)) for number in range(4000)])
    assert torch.allclose((many.mT @ many).mean(0), torch.eye(10), rtol=0, atol=0.05)


@each
@pytest.mark.parametrize("cut_at", [7, REFRESH, REFRESH + 5])
def test_a_checkpoint_goes_on_bit_for_bit(kind: str, cut_at: int) -> None:
    assert goes_on(partial(ours, kind=kind), cut_at)


@pytest.mark.parametrize("options", [{"rank": 4}, {"rank": 1, "scale_type": "tensor", "scale": 128.0}])
def test_the_state_is_as_large_as_the_formula_says(options: dict[str, Any]) -> None:
    """No projection is kept: two moments, and one number."""
    made = method(APOLLO, **options)
    optimizer, losses = learn(made, 60)
    assert losses[-1] < losses[0] / 2
    rank = options["rank"]
    sides = [*SIDES.values(), *([(4, 24)] * 2 if rank < 4 else [])]
    projected, rest = made.param_groups()
    assert len(projected["params"]) == len(sides)
    numbers = sum(2 * rank * max(side) + 1 for side in sides)
    assert state_bytes(optimizer) == 4 * (numbers + 2 * sum(p.numel() for p in rest["params"]))
    assert state_bytes(optimizer) < 0.6 * 2 * 4 * sum(p.numel() for p in made.parameters())


def test_options_and_seed_reach_the_optimiser() -> None:
    """Whatever is changed, and the course is another."""
    changed: list[dict[str, Any]] = [{}, {"scale": 4.0}, {"refresh": 5}, {"scale_type": "tensor"}]
    ends = [learn(method(APOLLO, rank=4, **options), 12)[1][-1] for options in changed]
    made = method(APOLLO, rank=4)
    made.seed = 4
    ends.append(learn(made, 12)[1][-1])
    assert len(set(ends)) == len(ends)
    assert ends[0] == learn(method(APOLLO, rank=4), 12)[1][-1]
