"""Paired differences of scores, their interquartile mean, and confidence intervals of both: Student's t, bootstrap."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)

DRAWS = 2000
"""Bootstrap samples of an interval."""
LEVEL = 0.95
"""Share of the distribution within an interval, which has equal tails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Scores of a row minus those of the baseline, for the same tasks and seeds.

    Attributes:
        mean: over seeds and tasks, with equal weight for every task.
        low, high: 95 % confidence interval of `mean`; None for one seed.
        iqm: interquartile mean over seeds and tasks: the mean of the middle half (arXiv 2108.13264).
        iqm_low, iqm_high: 95 % confidence interval of `iqm`; None for one seed.
    """

    mean: float
    low: float | None
    high: float | None
    iqm: float
    iqm_low: float | None
    iqm_high: float | None
    seeds: int
    tasks: int


def difference(scores: Sequence[Mapping[Key, float]], baseline: Sequence[Mapping[Key, float]]) -> Difference | None:
    """Compute `scores` minus `baseline`, each with one mapping seed → score per task, over the seeds complete in both.

    With one task the intervals are Student's t over the seeds. With several they are percentiles of the stratified
    bootstrap of arXiv 2108.13264 with `task_bootstrap`: tasks are samples with replacement, and seeds anew for each of
    them. Every comparison uses the same draws, so the order of comparisons does not matter. With few seeds these are
    too narrow; the interval of the mean therefore also holds that of t over the seeds' averages. That of the
    interquartile mean does not. None if no seed has every task in both.
    """
    import numpy as np

    seeds = sorted(common_keys((*scores, *baseline)), key=repr)
    if not seeds:
        return None
    pairs = list(zip(scores, baseline, strict=True))
    differences = np.array([[a[seed] - b[seed] for a, b in pairs] for seed in seeds])
    low = high = iqm_low = iqm_high = None
    if len(seeds) > 1:
        averages = [fmean(row) for row in differences.tolist()]
        low, high = t_interval(averages)
        iqm_low, iqm_high = t_interval(averages, cut=len(averages) // 4)
    if len(seeds) > 1 and len(pairs) > 1:
        samples = bootstrap(differences)
        ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
        drawn_low, drawn_high = np.percentile(samples.mean(axis=1), ends).tolist()
        low, high = min(low, drawn_low), max(high, drawn_high)
        iqm_low, iqm_high = np.percentile(interquartile_means(samples), ends).tolist()
    return Difference(
        mean=fmean(fmean(column) for column in differences.T.tolist()),
        low=low,
        high=high,
        iqm=interquartile_mean(differences.ravel().tolist()),
        iqm_low=iqm_low,
        iqm_high=iqm_high,
        seeds=len(seeds),
        tasks=len(pairs),
    )


def common_keys(mappings: Sequence[Mapping[Key, float]]) -> set[Key]:
    """Return the keys that every one of at least one mapping has."""
    return set(mappings[0]).intersection(*mappings[1:])


def t_interval(values: Sequence[float], cut: int = 0) -> tuple[float, float]:
    """Confidence interval of the mean of values without `cut` at each end, which are two or more.

    With a cut it is Tukey and McLaughlin's interval, with the deviation of the winsorised values.
    """
    ordered, count = sorted(values), len(values)
    kept = ordered[cut : count - cut]
    spread = stdev([kept[0]] * cut + kept + [kept[-1]] * cut)
    half = t_quantile(len(kept) - 1) * spread * math.sqrt(count) / len(kept)
    return fmean(kept) - half, fmean(kept) + half


@cache
def t_quantile(df: int) -> float:
    """The t that |T| of Student's distribution stays below with probability `LEVEL`.

    For whole degrees of freedom the probability is a finite sum in θ = atan(t/√df) (Abramowitz and Stegun, 26.7.3 and
    26.7.4), which bisection inverts: scipy would take longer to import.
    """
    odd = df % 2

    def probability(theta: float) -> float:
        term, total = 1.0, 0.0
        for k in range(1, (df - odd) // 2 + 1):
            total += term
            term *= math.cos(theta) ** 2 * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
        return 2 / math.pi * (theta + math.sin(theta) * math.cos(theta) * total) if odd else math.sin(theta) * total

    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if probability(middle) < LEVEL else (low, middle)
    return math.sqrt(df) * math.tan(low)


def bootstrap(values: NDArray[np.float64], draws: int = DRAWS) -> NDArray[np.float64]:
    """Draw bootstrap samples (draws, seeds·tasks) of `values` (seeds, tasks): tasks first, then seeds for each."""
    import numpy as np

    seeds, tasks = values.shape
    draw = np.random.default_rng(0)
    task = draw.integers(tasks, size=(draws, 1, tasks))
    seed = draw.integers(seeds, size=(draws, seeds, tasks))
    return values[seed, task].reshape(draws, -1)


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half, without a quarter (rounded down) at each end, as scipy.stats.trim_mean."""
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])


def interquartile_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`interquartile_mean` of each row of `values` (rows, n)."""
    import numpy as np

    cut = values.shape[1] // 4
    return np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(axis=1)
