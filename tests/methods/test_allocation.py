"""Rank shared out between layers: as many trained parameters as the uniform rank, in the policy's proportions."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from transformers import AutoTokenizer, BertConfig, BertModel

from bench.api.lowrank.allocation import allocate, depths, shares
from bench.backbones.text_encoders import from_folder
from bench.config.overrides import Overrides
from bench.config.sections import AllocationConfig
from bench.core.errors import UsageError
from bench.harness import planner
from bench.harness.request import Request

BLOCKS = 5
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "dora": ("lora", {"dora": True}),
    "deeplora": ("deeplora", {}),
    "deeplora-4": ("deeplora", {"depth": 4, "rank": 5}),
    "adalora": ("adalora", {}),
    "compressed": ("deeplora", {"form": "compressed"}),
    "compressed-frozen": ("deeplora", {"form": "compressed", "gamma": 0.0}),
}
POLICIES = ["depth", "depth-reverse", "gradient"]


@pytest.fixture(scope="module")
def deep(make_lab: Callable[..., Any], tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A lab on a BERT of five blocks, so that there is some depth to speak of."""
    folder = tmp_path_factory.mktemp("deep") / "deep-bert"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 128}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=BLOCKS, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.ndim > 1 else 1)  # else all gradients are about alike
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return make_lab(backbone=from_folder("deep-bert", folder))


def linear(width: int, square: int = 0) -> Callable[[int], int]:
    """width·r + square·r², as the docstrings of LoRA and Deep LoRA have it."""
    return lambda rank: width * rank + square * rank**2


def ideal(weights: Sequence[float], costs: Sequence[Any], bounds: Sequence[tuple[int, int]], budget: int) -> np.ndarray:
    """Real ranks t·weight within bounds whose cost, linear between whole ranks, is the budget; by Brent's method."""
    low, high = np.array(bounds, dtype=float).T

    def ranks(t: float) -> np.ndarray:
        return np.clip(t * np.array(weights), low, high)

    def excess(t: float) -> float:
        grid = [
            np.interp(r, range(100), [cost(k) for k in range(100)]) for r, cost in zip(ranks(t), costs, strict=True)
        ]
        return float(sum(grid)) - budget

    top = 1e6
    return ranks(top) if excess(top) <= 0 else ranks(brentq(excess, 0.0, top, xtol=1e-13, rtol=1e-14))


def exhaustive(
    middle: np.ndarray, costs: Sequence[Any], bounds: Sequence[tuple[int, int]], budget: int, step: int
) -> tuple[int, float]:
    """Best total and its squared distance over all ranks less than one step away, or two where one does not do."""
    best = (-1, 0.0)
    for reach in (1, 2):
        near = [
            [r for r in range(-(-low // step) * step, high + 1, step) if abs(r - m) < reach * step]
            for (low, high), m in zip(bounds, middle, strict=True)
        ]
        found = [
            (-total, float(np.square(np.array(ranks) - middle).sum()))
            for ranks in itertools.product(*near)
            if (total := sum(c(r) for c, r in zip(costs, ranks, strict=True))) <= budget
        ]
        total, distance = min(found)
        best = (-total, distance)
        if -total == budget:
            break
    return best


def cases(n: int) -> list[Any]:
    """Small problems of all kinds."""
    draw, found = random.Random(5), []
    for _ in range(n):
        layers, step = draw.randint(1, 5), draw.choice([1, 1, 2])
        costs = [linear(draw.choice([3, 5, 7, 64, 96]), draw.choice([0, 0, 1, 3])) for _ in range(layers)]
        weights = [draw.choice([draw.uniform(0.05, 4), 1.0, 2.0, 0.0]) for _ in range(layers)]
        weights[0] = weights[0] or 1.0
        uniform = step * draw.randint(1, 6)
        minimum = draw.randint(1, uniform)
        most = [draw.randint(uniform, 30) for _ in range(layers)]
        found.append((weights, costs, most, uniform, minimum, step))
    return found


def test_small_problems_are_solved_as_well_as_by_trying_everything() -> None:
    exact = below = 0
    for weights, costs, most, uniform, minimum, step in cases(400):
        found = allocate(weights, costs, most, uniform=uniform, minimum=minimum, step=step)
        least = -(-minimum // step) * step
        bounds = [(least, high // step * step) for high in most]
        assert all(low <= rank <= high and rank % step == 0 for rank, (low, high) in zip(found, bounds, strict=True))
        budget, total = sum(c(uniform) for c in costs), sum(c(r) for c, r in zip(costs, found, strict=True))
        middle = ideal(weights, costs, bounds, budget)
        want, distance = exhaustive(middle, costs, bounds, budget, step)
        assert total == want, (weights, uniform, minimum, step, found)
        assert float(np.square(np.array(found) - middle).sum()) == pytest.approx(distance, abs=1e-6)
        exact, below = exact + (total == budget), below + (total < budget)
    assert exact > 100 and below > 20, "both kinds occurred"


@pytest.mark.parametrize("seed", range(5))
def test_equal_layers_get_hamiltons_largest_remainders(seed: int) -> None:
    """Layers of one shape: floors of the quotas, and the ranks that are left to the largest fractions; all is spent."""
    draw = np.random.default_rng(seed)
    for _ in range(40):
        n, uniform = int(draw.integers(2, 30)), int(draw.integers(4, 20))
        weights = draw.uniform(0.5, 1.5, n)
        quotas = weights / weights.sum() * n * uniform
        want = np.floor(quotas).astype(int)
        want[np.argsort(want - quotas)[: n * uniform - want.sum()]] += 1
        found = allocate(list(weights), [linear(96)] * n, [100] * n, uniform=uniform)
        assert found == want.tolist()
        assert sum(found) == n * uniform


def test_what_no_ranks_nearby_can_spend_is_left_and_never_overspent() -> None:
    """Costs 5 and 7 from (4, 4): 48 = 5a + 7b has (4, 4) alone, far from 1 : 3, so 1·5 + 6·7 = 47 it is."""
    assert allocate([1, 3], [linear(5), linear(7)], [20, 20], uniform=4) == [1, 6]


def test_bounds_hold_and_pass_on_what_they_keep() -> None:
    found = allocate([0.0, 1.0, 9.0], [linear(10)] * 3, [40, 40, 9], uniform=8)
    assert found == [1, 14, 9], "the least for no share, the cap for too much, the rest for the other"
    assert allocate([0, 1, 3], [linear(10)] * 3, [40] * 3, uniform=8, minimum=5) == [5, 5, 14]
    assert allocate([1, 5], [linear(4)] * 2, [40] * 2, uniform=8, minimum=3, step=2) == [4, 12]
    assert allocate([1.0] * 4, [linear(3, 1), linear(9)] * 2, [4, 30] * 2, uniform=6) == [6] * 4


def test_depth_is_the_blocks_place() -> None:
    names = [
        "encoder.layer.0.q",
        "encoder.layer.0.v",
        "encoder.layer.10.q",
        "encoder.layer.2.x.7.v",
        "layer1.3",
        "last",
    ]
    assert depths(names) == [0, 0, 0.25, 0.5, 0.75, 1]
    assert depths(["a.0.q", "a.0.v"]) == [0, 0]
    names = [f"layer.{i}.q" for i in range(5)]
    assert shares(AllocationConfig(policy="depth"), names, {}) == pytest.approx([0.5, 0.75, 1, 1.25, 1.5])
    assert shares(AllocationConfig(policy="depth-reverse", slope=1), names, {}) == pytest.approx([2, 1.5, 1, 0.5, 0])
    config = AllocationConfig(policy="gradient")
    assert shares(config, ["a", "b"], {"b": 3.0}) == [0, 3]
    assert shares(config, ["a", "b"], {}) == [1, 1], "no gradient anywhere: uniform"


def spec(lab: Any, name: str, target: str, policy: str, **more: Any) -> Any:
    method, options = METHODS[name]
    allocation = {"policy": policy, **more} if policy != "uniform" else {}
    return lab.spec(method, options={**options, "target": target}, allocation=allocation)


def trained(method: Any) -> dict[str, int]:
    """Trained parameters of every adapted layer, counted."""
    return {n: sum(p.numel() for p in layer.parameters() if p.requires_grad) for n, layer in method.layers()}


def widths(name: str, method: Any) -> list[int]:
    """m + n of every layer, or 0 where the outer factors are frozen: parameters per rank beside the squares."""
    return [0 if "frozen" in name else sum(layer.base.weight.shape) for _, layer in method.layers()]


def ranks_of(method: Any) -> dict[str, int]:
    """Rank of every layer, from the shape of what was built."""
    return {name: layer.factors[0].shape[0] for name, layer in method.layers()}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("target", ["qv", "all-linear"])
@pytest.mark.parametrize("name", METHODS)
def test_as_many_parameters_train_as_with_the_uniform_rank(deep: Any, name: str, target: str, policy: str) -> None:
    _, plain = deep.build(spec(deep, name, target, "uniform"))
    _, method = deep.build(spec(deep, name, target, policy))
    want, found = trained(plain), trained(method)
    assert [*found] == [*want]
    unspent = sum(want.values()) - sum(found.values())
    assert unspent >= 0
    if unspent:
        [line] = method.warnings()
        assert f"{unspent:,} parameters fewer" in line and policy in line
    else:
        assert method.warnings() == []
    ranks = ranks_of(method)
    if name.startswith("compressed"):  # even ranks and squares do not meet every sum: less is left than a step costs
        assert all(rank % 2 == 0 for rank in ranks.values())
        assert unspent < min(
            width * 2 + 3 * 4 * (rank + 1) for width, rank in zip(widths(name, method), ranks.values(), strict=True)
        )
    else:
        assert unspent == 0
    assert min(ranks.values()) >= 1
    assert len({*ranks.values()}) > 1, "the policy changed something"
    assert plain.warnings() == [] and len({*ranks_of(plain).values()}) == 1


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("policy", ["depth", "depth-reverse"])
def test_rank_is_monotone_in_depth_among_layers_of_a_shape(deep: Any, name: str, policy: str) -> None:
    _, method = deep.build(spec(deep, name, "all-linear", policy, slope=0.8))
    groups: dict[str, list[int]] = defaultdict(list)
    for layer, rank in ranks_of(method).items():
        groups[layer.partition(".layer.")[2][2:]].append(rank)
    assert len(groups) == 6
    for kind, found in groups.items():
        assert found == sorted(found, reverse=policy == "depth-reverse"), kind
        assert len(found) == BLOCKS and abs(found[-1] - found[0]) >= 2


def test_a_steeper_slope_goes_further_and_zero_is_uniform(deep: Any) -> None:
    found = {
        slope: [*ranks_of(deep.build(spec(deep, "lora", "qv", "depth", slope=slope))[1]).values()][::2]
        for slope in (0.0, 0.5, 1.0)
    }
    assert found[0.0] == [8] * 5 and found[0.5] == [4, 6, 8, 10, 12]
    assert found[1.0][0] == 1 and found[1.0][-1] >= 15


@pytest.mark.parametrize("measure", ["effective", "energy"])
def test_gradient_ranks_are_those_of_numpys_svd(deep: Any, measure: str) -> None:
    """∂loss/∂W of the unchanged network on the first batch; all layers here are 32×32, so quotas are simple."""
    data, plain = deep.build(spec(deep, "lora", "qv", "uniform"))
    plain.eval()
    weights = {name: layer.base.weight.requires_grad_() for name, layer in plain.layers()}
    plain.loss(data.first_batch()).backward()
    measured: dict[str, float] = {}
    for name, weight in weights.items():
        assert weight.grad is not None
        sigma = np.linalg.svd(weight.grad.double().numpy(), compute_uv=False)
        p = sigma[sigma > 0] / sigma.sum()
        squares = np.cumsum(sigma**2) / np.sum(sigma**2)
        measured[name] = (
            float(np.exp(-(p * np.log(p)).sum())) if measure == "effective" else 1 + int((squares < 0.9).sum())
        )
    _, method = deep.build(spec(deep, "lora", "qv", "gradient", measure=measure))
    ranks = ranks_of(method)
    quotas = np.array([*measured.values()]) / sum(measured.values()) * 8 * len(measured)
    assert quotas.min() > 1, "else the least rank would matter"
    assert np.abs(np.array([*ranks.values()]) - quotas).max() < 1
    assert sum(ranks.values()) == 8 * len(measured)
    by_hand = np.floor(quotas)
    extra = np.argsort(by_hand - quotas)[: int(8 * len(measured) - by_hand.sum())]
    by_hand[extra] += 1
    if measure == "effective":  # whole numbers tie
        assert [*ranks.values()] == by_hand.tolist()
    assert not any(p.grad is not None for p in method.parameters()), "the look at the gradient leaves nothing behind"
    assert all(not layer.base.weight.requires_grad for _, layer in method.layers())


def test_a_run_has_its_ranks_and_warnings_in_the_record(deep: Any) -> None:
    run = deep.run(spec(deep, "compressed", "qv", "depth").with_(max_steps=2))
    uniform = deep.run(spec(deep, "compressed", "qv", "uniform").with_(max_steps=2))
    assert [row.nominal for row in run.result.ranks] == [*ranks_of(run.method).values()]
    fewer = uniform.result.params.trainable - run.result.params.trainable
    assert fewer > 0, "even ranks of ten equal layers do not meet every sum"
    [line] = [line for line in run.result.warnings if line.startswith("allocation")]
    assert line == f"allocation.policy=depth trains {fewer:,} parameters fewer than method.rank everywhere"
    assert not [line for line in uniform.result.warnings if line.startswith("allocation")]
    again = deep.run(spec(deep, "lora", "all-linear", "gradient").with_(max_steps=2))
    repeat = deep.run(spec(deep, "lora", "all-linear", "gradient").with_(max_steps=2))
    assert again.losses == repeat.losses and again.result.ranks == repeat.result.ranks
    assert not [line for line in again.result.warnings if line.startswith("allocation")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slope": 0.3}, "allocation.slope=0.3 has no effect"),
        ({"minimum": 2}, "allocation.minimum=2 has no effect"),
        ({"policy": "depth", "measure": "energy"}, "allocation.measure=energy has no effect"),
        ({"policy": "gradient", "slope": 1.0}, "allocation.slope=1.0 has no effect"),
        ({"policy": "depth", "slope": 1.5}, "allocation.slope=1.5"),
        ({"policy": "depth", "slope": -0.5}, "allocation.slope=-0.5"),
        ({"policy": "depth", "minimum": 0}, "allocation.minimum=0"),
    ],
)
def test_options_that_say_nothing_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        AllocationConfig(**given)
    assert caught.value.known and caught.value.todo


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("name", "options", "more", "said"),
    [
        ("lora", {}, {"minimum": 9}, "allocation.minimum=9 exceeds method.rank=8"),
        ("deeplora", {"form": "compressed"}, {"minimum": 9}, "allocation.minimum=9 exceeds"),
        ("deeplora", {"rank": None}, {}, "method.rank=none"),
        ("adalora", {"init_rank": 12}, {}, "method.init_rank"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    lab: Any, policy: str, name: str, options: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        lab.build(lab.spec(name, options=options, allocation={"policy": policy, **more}))
    assert caught.value.known and caught.value.todo


def planned(methods: tuple[str, ...], *settings: str) -> dict[str, planner.PlannedRun]:
    """The planned run of every method by its name."""
    plan = planner.make_plan(Request(methods=methods, tasks=("glue/rte",), overrides=Overrides.parse(settings)))
    return {run.spec.method: run for run in plan.runs}


def test_a_plan_gives_the_policy_to_those_that_have_ranks() -> None:
    plain, shared = (
        planned(("full", "lora", "deeplora")),
        planned(("full", "lora", "deeplora"), "allocation.policy=depth"),
    )
    assert shared["full"].run_id == plain["full"].run_id, "nothing changes for it"
    for name in ("lora", "deeplora"):
        assert shared[name].run_id != plain[name].run_id
        assert shared[name].spec.options.allocation == AllocationConfig(policy="depth")
    assert planned(("lora",), "allocation.policy=uniform")["lora"].run_id == plain["lora"].run_id
    assert plain["lora"].spec.options.allocation == AllocationConfig()


def test_an_adapter_to_start_from_decides_the_ranks_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"allocation\.policy=depth with method\.start"):
        planned(("lora", "full"), "allocation.policy=depth", f"method.start={tmp_path}")


@pytest.mark.parametrize("methods", [("full",), ("linear", "bitfit")])
def test_a_plan_without_any_rank_to_share_is_refused(methods: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="no rank to share out") as caught:
        planned(methods, "allocation.policy=gradient")
    assert "lora" in caught.value.known and "full" not in caught.value.known
