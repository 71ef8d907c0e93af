"""Who gets how much rank: the shares of layers by a policy, and integer ranks of equal total parameters from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from bench.config.sections import AllocationConfig
from bench.core.errors import UsageError
from bench.spectra import effective_rank, energy_rank

Cost = Callable[[int], int]
"""Trained parameters of one layer by its rank, increasing."""
REACH = (1, 2)
"""Ranks are less than one step away from the policy's where that meets the budget, else less than two."""


def depths(names: Sequence[str]) -> list[float]:
    """Depth of each layer from 0, the first, to 1: its block's place among the blocks that are adapted.

    A block is a name up to its first number (`encoder.layer.3`), a name without one a block of its own.
    """
    blocks = [match[0] if (match := re.match(r"(.*?\.)?\d+(?=\.|$)", name)) else name for name in names]
    order = {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    return [order[block] / max(1, len(order) - 1) for block in blocks]


def gradient_rank(config: AllocationConfig, gradient: Tensor) -> float:
    """The rank of ∂loss/∂W (m, n) in the measure of `config`."""
    return float(effective_rank(gradient) if config.measure == "effective" else energy_rank(gradient, 0.9))


def shares(config: AllocationConfig, names: Sequence[str], measured: Mapping[str, float]) -> list[float]:
    """What the ranks of the layers, in the order of the network, are proportional to.

    Args:
        config: the policy; `depth` gives 1 − slope at the first block, 1 + slope at the last, `depth-reverse` turns it.
        names: of the layers.
        measured: rank of each layer's gradient, for `gradient`; a layer without one gets the least.
    """
    if config.policy == "gradient":
        found = [measured.get(name, 0.0) for name in names]
        return found if any(found) else [1.0] * len(names)
    slope = {"depth": config.slope, "depth-reverse": -config.slope}.get(config.policy, 0.0)
    return [1 + slope * (2 * depth - 1) for depth in depths(names)]


def share_out(
    config: AllocationConfig,
    shapes: Mapping[str, tuple[int, int]],
    measured: Mapping[str, float],
    *,
    uniform: int | None,
    cost: Callable[[int, int, int], int],
    step: int,
) -> tuple[dict[str, int], int]:
    """Rank of every layer, and by how many parameters they stay below those of rank `uniform` in every layer.

    Args:
        config: the policy.
        shapes: (m, n) of the layers by name, in the order of the network.
        measured: rank of each layer's gradient, for `gradient`.
        uniform: sets the budget.
        cost: trained parameters of a layer by m, n and rank.
        step: ranks are multiples of it.

    Raises:
        UsageError: `uniform` is None, rank costs nothing, or the least ranks cost more than the budget.
    """
    if uniform is None:
        raise UsageError(
            f"allocation.policy={config.policy} with method.rank=none",
            "without a rank every layer is as wide as its weight, and there is nothing to share out",
            "Give method.rank, or leave the policy out.",
        )
    costs = [partial(cost, m, n) for m, n in shapes.values()]
    if any(cost(uniform + step) <= cost(uniform) for cost in costs):
        raise UsageError(
            f"allocation.policy={config.policy}: how much trains does not depend on the rank that is shared out",
            "another option gives every layer the same, as method.init_rank does",
            "Leave that option out, or the policy.",
        )
    most = [min(shape) for shape in shapes.values()]
    weights = shares(config, [*shapes], measured)
    ranks = allocate(weights, costs, most, uniform=uniform, minimum=config.minimum, step=step)
    unspent = sum(cost(uniform) - cost(rank) for cost, rank in zip(costs, ranks, strict=True))
    return dict(zip(shapes, ranks, strict=True)), unspent


def allocate(
    shares: Sequence[float],
    costs: Sequence[Cost],
    most: Sequence[int],
    *,
    uniform: int,
    minimum: int = 1,
    step: int = 1,
) -> list[int]:
    """Ranks in proportion to `shares` whose total parameters are those of rank `uniform` in every layer.

    Of the ranks near the proportional ones (`REACH`) those whose total is the budget or, where none is, nearest below
    it; among these the ones with the least squared distance from the proportional ranks.

    Args:
        shares: one per layer, not negative, at least one of them positive.
        costs: one per layer.
        most: highest rank of each layer.
        uniform: sets the budget.
        minimum: least rank of a layer.
        step: ranks are multiples of it; `uniform` must be.

    Raises:
        UsageError: the least ranks cost more than the budget.
    """
    least = math.ceil(minimum / step) * step
    if least > uniform:
        raise UsageError(
            f"allocation.minimum={minimum} exceeds method.rank={uniform}",
            "the total is that of method.rank in every layer",
            "Lower the minimum, or raise the rank.",
        )
    highs = [max(high // step * step, uniform) for high in most]
    budget = sum(cost(uniform) for cost in costs)
    ideal = _proportional(shares, costs, [(least, high) for high in highs], budget)
    found: list[int] = []
    for reach in REACH:
        near = [
            [rank for rank in range(least, high + 1, step) if abs(rank - middle) < reach * step]
            for middle, high in zip(ideal, highs, strict=True)
        ]
        found = _nearest(near, ideal, costs, budget)
        if sum(cost(rank) for cost, rank in zip(costs, found, strict=True)) == budget:
            break
    return found


def _proportional(
    shares: Sequence[float], costs: Sequence[Cost], bounds: Sequence[tuple[int, int]], budget: int
) -> list[float]:
    """Real ranks t·share, within bounds, that cost the budget; between whole ranks a cost is linear."""

    def ranks(t: float) -> list[float]:
        return [min(max(t * share, low), high) for share, (low, high) in zip(shares, bounds, strict=True)]

    def spent(t: float) -> float:
        total = 0.0
        for rank, cost in zip(ranks(t), costs, strict=True):
            whole = int(rank)
            total += cost(whole) + ((rank - whole) * (cost(whole + 1) - cost(whole)) if rank > whole else 0)
        return total

    low, high = 0.0, max(high for _, high in bounds) / min(share for share in shares if share > 0)
    for _ in range(200):  # until neighbouring floats
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) <= budget else (low, middle)
    return ranks(low)


def _nearest(near: Sequence[Sequence[int]], ideal: Sequence[float], costs: Sequence[Cost], budget: int) -> list[int]:
    """One rank of each list: the largest total cost within the budget, and of those the least squared distance.

    Dynamic programming over the layers and the total cost beyond the cheapest choice, in units of the differences' gcd.
    """
    prices = [[cost(rank) for rank in ranks] for ranks, cost in zip(near, costs, strict=True)]
    extras = [[price - row[0] for price in row] for row in prices]
    unit = math.gcd(*(extra for row in extras for extra in row)) or 1
    room = min(budget - sum(row[0] for row in prices), sum(row[-1] for row in extras)) // unit
    best = np.full(room + 1, np.inf)
    best[0] = 0.0
    taken: list[np.ndarray] = []
    for ranks, row, middle in zip(near, extras, ideal, strict=True):
        following, choice = np.full(room + 1, np.inf), np.zeros(room + 1, dtype=np.int8)
        for index, (rank, extra) in enumerate(zip(ranks, row, strict=True)):
            shift = extra // unit
            if shift > room:
                break
            offer = best[: room + 1 - shift] + (rank - middle) ** 2
            better = offer < following[shift:]
            following[shift:][better], choice[shift:][better] = offer[better], index
        best = following
        taken.append(choice)
    at = int(np.flatnonzero(np.isfinite(best))[-1])
    found: list[int] = []
    for ranks, row, choice in zip(reversed(near), reversed(extras), reversed(taken), strict=True):
        index = int(choice[at])
        found.append(ranks[index])
        at -= row[index] // unit
    return found[::-1]
