"""Allocation of rank: shares of the layers by a policy, and whole ranks with the same total of parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from torch import Size, Tensor

from bench.config.sections import AllocationConfig
from bench.core.errors import UsageError
from bench.spectra import effective_rank, energy_rank

Cost = Callable[[int], int]
"""Trained parameters of one layer as an increasing function of its rank."""
REACH = (1, 2)
"""Whole ranks differ from the policy's by less than one step if that meets the budget, else by less than two."""


def depths(names: Sequence[str]) -> list[float]:
    """Return the depth of each layer, from 0 to 1: the place of its block among the adapted blocks.

    A block is a name up to its first number (`encoder.layer.3`); a name without a number is its own block.
    """
    blocks = [match[0] if (match := re.match(r"(.*?\.)?\d+(?=\.|$)", name)) else name for name in names]
    order = {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    return [order[block] / max(1, len(order) - 1) for block in blocks]


def gradient_rank(config: AllocationConfig, gradient: Tensor) -> float:
    """Return the rank of ∂loss/∂W (m, n) by the measure that `config` names."""
    return float(effective_rank(gradient) if config.measure == "effective" else energy_rank(gradient, 0.9))


def shares(config: AllocationConfig, names: Sequence[str], measured: Mapping[str, float]) -> list[float]:
    """Return the numbers to which the ranks of the layers `names`, in the order of the network, are proportional.

    `depth` gives 1 − slope at the first block and 1 + slope at the last, `depth-reverse` the opposite, and `gradient`
    the `measured` ranks of the gradients; a layer without one gets the least.
    """
    if config.policy == "gradient":
        ranks = [measured.get(name, 0.0) for name in names]
        return ranks if any(ranks) else [1.0] * len(names)
    slope = {"depth": config.slope, "depth-reverse": -config.slope}.get(config.policy, 0.0)
    return [1 + slope * (2 * depth - 1) for depth in depths(names)]


def share_rank(
    config: AllocationConfig,
    shapes: Mapping[str, Size],
    measured: Mapping[str, float],
    *,
    uniform: int | None,
    cost: Callable[[int, int, int], int],
    step: int,
) -> tuple[dict[str, int], int]:
    """Return the rank of every layer, and how many parameters fewer they have than rank `uniform` in every layer.

    From the shapes (m, n) by name, in the order of the network, and the trained parameters by m, n and rank; the others
    as in `shares` and `allocate`.

    Raises:
        UsageError: `uniform` is None, rank costs nothing, or the least ranks cost more than the budget.
    """
    if uniform is None:
        raise UsageError(
            f"allocation.policy={config.policy} with method.rank=none",
            "without a rank every layer is as wide as its weight, and there is nothing to share",
            "Set method.rank, or leave the policy out.",
        )
    costs = [partial(cost, m, n) for m, n in shapes.values()]
    if any(cost(uniform + step) <= cost(uniform) for cost in costs):
        raise UsageError(
            f"allocation.policy={config.policy} has no effect: the trained parameters do not depend on method.rank",
            "another option fixes them for every layer, as method.init_rank does",
            "Leave out that option, or the policy.",
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
    """Return ranks in proportion to `shares` with the total parameters of rank `uniform` in every layer.

    Among ranks near the proportional ones (`REACH`) it takes those whose total is the budget or the nearest below it,
    and of these the ones with the least squared distance from the proportional ranks.

    Args:
        shares: one per layer, not negative, at least one of them positive.
        costs: one per layer.
        most: highest rank of each layer.
        uniform: sets the budget.
        minimum: least rank of a layer.
        step: all ranks, `uniform` too, are multiples of it.

    Raises:
        UsageError: the least ranks cost more than the budget.
    """
    least = math.ceil(minimum / step) * step
    if least > uniform:
        raise UsageError(
            f"allocation.minimum={minimum} exceeds method.rank={uniform}",
            "the total parameters are those of method.rank in every layer",
            "Lower the minimum, or raise the rank.",
        )
    highs = [max(high // step * step, uniform) for high in most]
    budget = sum(cost(uniform) for cost in costs)
    ideal = _proportional(shares, costs, [(least, high) for high in highs], budget)
    ranks: list[int] = []
    for reach in REACH:
        near = [
            [rank for rank in range(least, high + 1, step) if abs(rank - middle) < reach * step]
            for middle, high in zip(ideal, highs, strict=True)
        ]
        ranks = _nearest(near, ideal, costs, budget)
        if sum(cost(rank) for cost, rank in zip(costs, ranks, strict=True)) == budget:
            break
    return ranks


def _proportional(
    shares: Sequence[float], costs: Sequence[Cost], bounds: Sequence[tuple[int, int]], budget: int
) -> list[float]:
    """Return real ranks t·share, within bounds, that cost the budget; a cost is linear between whole ranks."""

    def ranks(t: float) -> list[float]:
        return [min(max(t * share, low), high) for share, (low, high) in zip(shares, bounds, strict=True)]

    def spent(t: float) -> float:
        total = 0.0  # not `sum`, whose rounding changed with Python 3.12
        for rank, cost in zip(ranks(t), costs, strict=True):
            whole = int(rank)
            total += cost(whole) + (rank - whole) * (cost(whole + 1) - cost(whole))
        return total

    low, high = 0.0, max(high for _, high in bounds) / min(share for share in shares if share > 0)
    for _ in range(200):  # more bisections than a float has bits
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) <= budget else (low, middle)
    return ranks(low)


def _nearest(near: Sequence[Sequence[int]], ideal: Sequence[float], costs: Sequence[Cost], budget: int) -> list[int]:
    """Take one rank of each list, with the largest total cost within the budget, then the least squared distance.

    Dynamic programming over the layers and the total cost above the cheapest choice, in units of the differences' gcd.
    """
    prices = [[cost(rank) for rank in ranks] for ranks, cost in zip(near, costs, strict=True)]
    extras = [[price - row[0] for price in row] for row in prices]
    unit = math.gcd(*(extra for row in extras for extra in row)) or 1
    room = min(budget - sum(row[0] for row in prices), sum(row[-1] for row in extras)) // unit
    best = np.full(room + 1, np.inf)
    best[0] = 0.0
    choices: list[np.ndarray] = []
    for ranks, row, middle in zip(near, extras, ideal, strict=True):
        following, choice = np.full(room + 1, np.inf), np.zeros(room + 1, dtype=np.int8)
        for index, (rank, extra) in enumerate(zip(ranks, row, strict=True)):
            shift = extra // unit
            if shift > room:
                break
            candidate = best[: room + 1 - shift] + (rank - middle) ** 2
            better = candidate < following[shift:]
            following[shift:][better], choice[shift:][better] = candidate[better], index
        best = following
        choices.append(choice)
    at = int(np.flatnonzero(np.isfinite(best))[-1])
    chosen: list[int] = []
    for ranks, row, choice in zip(reversed(near), reversed(extras), reversed(choices), strict=True):
        index = int(choice[at])
        chosen.append(ranks[index])
        at -= row[index] // unit
    return chosen[::-1]
