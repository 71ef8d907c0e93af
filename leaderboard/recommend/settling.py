"""How many seeds, or examples, would make the interval of a difference narrow enough to say something."""

from __future__ import annotations

import math
from statistics import variance
from typing import NamedTuple

from leaderboard.tables.intervals import MANY, Paired, t_quantile, widening

MOST_SEEDS = 50
"""More are not advised: the difference is then too small to matter, or the split too small to show it."""
MOST_TIMES = 100
"""The same for examples, as a multiple of those there are."""


class Settling(NamedTuple):
    """What would give an interval a half-width: `seeds` in all with these examples, or `examples` with these seeds.

    None where neither that many seeds nor that many examples are enough alone.
    """

    seeds: int | None
    examples: int | None


def settling(paired: Paired, half_width: float, *, comparisons: int = 1) -> Settling:
    """Estimate what a difference of at least two seeds needs, from the deviations seen so far.

    The variance of a mean over n seeds is (between + differing) / n + shared: between seeds, and over the examples the
    part that differs from seed to seed and the part that all seeds share, which no number of seeds lowers.
    """
    values, noise = paired.averages, paired.noise
    count = len(values)
    spread, differing, shared = variance(values), 0.0, 0.0
    if noise:
        differing = max(0.0, noise.of_one - noise.of_mean) * count / (count - 1)
        shared = max(0.0, noise.of_one - differing)
    of_seeds = max(spread, differing)

    def enough(seeds: int, times: float = 1.0) -> bool:
        between = max(0.0, of_seeds - differing)
        per_seed = between + differing / times
        total = per_seed / seeds + shared / times
        if total == 0:
            return True
        degrees = MANY if per_seed == 0 else (seeds - 1) * (total * seeds / per_seed) ** 2
        degrees = min(MANY, max(1, math.floor(degrees)))
        return t_quantile(degrees) * widening(comparisons) * math.sqrt(total) <= half_width

    more_seeds = next((seeds for seeds in range(count, MOST_SEEDS + 1) if enough(seeds)), None)
    more_examples = None
    if noise and paired.examples and enough(count, MOST_TIMES):
        low, high = 1.0, float(MOST_TIMES)
        while high - low > 0.01:
            middle = (low + high) / 2
            low, high = (low, middle) if enough(count, middle) else (middle, high)
        more_examples = math.ceil(high * paired.examples)
    return Settling(more_seeds, more_examples)
