"""Optimisers by name against torch's own, Muon's two halves as one, and the bytes they keep."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.api import optimizers
from bench.config.sections import OptimConfig
from bench.core.errors import UsageError

LR = 2e-2
SHAPES = {"matrix": (6, 4), "head": (3, 6), "kernel": (5, 2, 3, 3), "bias": (6,)}
ADAMW = 8
"""Bytes of AdamW's two moments of a float32 parameter."""

Parameters = dict[str, nn.Parameter]


def build(name: str, groups: list[Any], *, lr: float = LR, decay: float = 0.1, **more: Any) -> torch.optim.Optimizer:
    """An optimiser with the options that its name uses."""
    options: dict[str, Any] = {"name": name, "weight_decay": decay}
    options |= {"eps": 1e-6} if name in ("adamw", "adam", "muon") else {}
    options |= {"momentum": 0.8} if name in ("momentum", "muon") else {}
    return optimizers.build_optimizer(OptimConfig(**options), groups, lr=lr, **more)


def parameters() -> Parameters:
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def halving(optimizer: torch.optim.Optimizer) -> Any:
    """A schedule that halves every learning rate at every step."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)


def train(optimizer: torch.optim.Optimizer, trained: Parameters, steps: range, scheduler: Any = None) -> None:
    """Gradients that are a function of the step."""
    scheduler = scheduler or halving(optimizer)
    for step in steps:
        for number, parameter in enumerate(trained.values()):
            generator = torch.Generator().manual_seed(100 * step + number)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        scheduler.step()


def same(ours: Parameters, theirs: Parameters) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in SHAPES)


PLAIN: dict[str, Callable[[list[Any]], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=2e-2, eps=1e-6, weight_decay=0.1),
    "adam": lambda groups: torch.optim.Adam(groups, lr=2e-2, eps=1e-6, weight_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=2e-2, weight_decay=0.1),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=2e-2, weight_decay=0.1, momentum=0.8),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_is_torchs_optimiser_with_these_options(name: str) -> None:
    ours, theirs = parameters(), parameters()
    first, *rest = ours.values()
    given = [{"params": [first], "lr": 1e-1}, {"params": rest}]
    want_first, *want_rest = theirs.values()
    train(build(name, given), ours, range(5))
    train(PLAIN[name]([{"params": [want_first], "lr": 1e-1}, {"params": want_rest}]), theirs, range(5))
    assert same(ours, theirs)
    assert given == [{"params": [first], "lr": 1e-1}, {"params": rest}], "the caller's groups are left alone"


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")


def muon(trained: Parameters) -> torch.optim.Optimizer:
    head = trained["head"]
    groups = [{"params": [trained["matrix"], trained["bias"]]}, {"params": [head, trained["kernel"]], "lr": 1e-1}]
    return build("muon", groups, not_muon=[head])


@needs_muon
def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    ours, theirs = parameters(), parameters()
    train(muon(ours), ours, range(4))
    slow, fast = [theirs["bias"]], [theirs["head"], theirs["kernel"]]
    adamw = torch.optim.AdamW([{"params": slow}, {"params": fast, "lr": 1e-1}], lr=2e-2, eps=1e-6, weight_decay=0.1)
    train(adamw, theirs, range(4))
    matrix = [theirs["matrix"]]
    alone = torch.optim.Muon(matrix, lr=2e-2, momentum=0.8, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    train(alone, theirs, range(4))
    assert same(ours, theirs)


@needs_muon
def test_muons_steps_are_as_large_as_adamws() -> None:
    """0.2·√max(m, n) times a matrix of orthonormal rows or columns: entries of .2, up to what five steps leave."""
    trained = {"wide": nn.Parameter(torch.zeros(16, 64)), "tall": nn.Parameter(torch.zeros(64, 16))}
    optimizer = build("muon", [{"params": [*trained.values()]}], lr=1.0, decay=0.0)
    for number, parameter in enumerate(trained.values()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    optimizer.step()
    for parameter in trained.values():
        assert 0.14 < float(parameter.detach().square().mean().sqrt()) < 0.26
        assert torch.linalg.cond(parameter.detach()) < 2.5


@needs_muon
def test_muon_goes_on_from_a_checkpoint_bit_for_bit() -> None:
    whole, cut = parameters(), parameters()
    train(muon(whole), whole, range(6))
    before = muon(cut)
    schedule = halving(before)
    train(before, cut, range(3), schedule)
    file = io.BytesIO()
    torch.save([before.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    again = muon(cut)
    schedule = halving(again)
    for part, state in zip((again, schedule), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(again, cut, range(3, 6), schedule)
    assert same(whole, cut)


@needs_muon
def test_muon_runs_its_closure_with_gradients_and_gives_the_loss() -> None:
    trained = parameters()
    optimizer = muon(trained)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([p.square().sum() for p in trained.values()]).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    assert optimizer.state.keys() == set(trained.values())


@needs_muon
def test_muon_without_a_matrix_is_refused() -> None:
    trained = parameters()
    groups = [{"params": [trained["bias"], trained["kernel"], trained["head"]]}]
    with pytest.raises(UsageError, match="no matrix"):
        build("muon", groups, not_muon=[trained["head"]])


def test_muon_without_torchs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(UsageError, match=r"Muon came with 2\.9") as refused:
        muon(parameters())
    assert torch.__version__ in refused.value.known


COUNT = {name: torch.Size(shape).numel() for name, shape in SHAPES.items()}
ALL = sum(COUNT.values())
STEPS = 4
"""Bytes of the count of steps that Adam keeps for every parameter."""
BYTES: dict[str, int] = {
    "adamw": ADAMW * ALL + STEPS * len(SHAPES),
    "adam": ADAMW * ALL + STEPS * len(SHAPES),
    "sgd": 0,
    "momentum": ADAMW // 2 * ALL,
    "muon": ADAMW // 2 * COUNT["matrix"] + ADAMW * (ALL - COUNT["matrix"]) + STEPS * (len(SHAPES) - 1),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_muon if name == "muon" else ()) for name in BYTES])
def test_bytes_are_those_of_the_moments(name: str) -> None:
    trained = parameters()
    optimizer = build(name, [{"params": [*trained.values()]}], not_muon=[trained["head"]])
    assert optimizers.state_bytes(optimizer) == 0
    train(optimizer, trained, range(2))
    assert optimizers.state_bytes(optimizer) == BYTES[name]
