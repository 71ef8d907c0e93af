"""Paired differences of scores and their confidence intervals: over seeds and examples, and over tasks.

An interval counts two sources of chance: which seeds were used, and which examples happen to be in the split. `Noise`
is the second one; without it an interval is over seeds alone, with one seed over the examples alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean, stdev, variance
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)

DRAWS = 2000
"""Bootstrap samples of an interval."""
LEVEL = 0.95
"""Share of the distribution within an interval, which has equal tails."""
MANY = 200
"""Most degrees of freedom that are counted: t is then 1.97, and its quantile takes longer the more there are."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Variances of scores over which examples are in the split: `of_mean` of the mean over seeds, `of_one` of a seed's.

    Examples that are hard for every seed count in both; those on which seeds disagree count less in the mean.
    """

    of_mean: float
    of_one: float

    @classmethod
    def of(cls, drawn: Sequence[NDArray[np.floating]]) -> Noise:
        """Estimate both from the scores of each seed in each draw of the examples, (draws,) each."""
        import numpy as np

        values = np.stack(drawn)
        return cls(float(values.mean(axis=0).var()), float(values.var(axis=1).mean()))


class Drawn(NamedTuple, Generic[Key]):
    """Scores of both sides of a comparison on one task in each draw of the bootstrap over examples, by seed: (draws,).

    Both have the same draws of the same examples, so that their difference is paired.
    """

    scores: Mapping[Key, NDArray[np.floating]]
    baseline: Mapping[Key, NDArray[np.floating]]
    examples: int


class Paired(NamedTuple):
    """Differences of two rows: `values` (seeds, tasks), and their noise over the `examples` of all tasks, if known."""

    values: NDArray[np.floating]
    noise: Noise | None
    examples: int

    @property
    def averages(self) -> list[float]:
        """The mean over tasks for each seed."""
        return [fmean(row) for row in self.values.tolist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Scores of a row minus those of the baseline, for the same tasks and seeds.

    Attributes:
        mean: over seeds and tasks, with equal weight for every task.
        low, high: 95 % confidence interval of `mean`; None for one seed without examples.
        iqm: interquartile mean over seeds and tasks: the mean of the middle half (arXiv 2108.13264).
        iqm_low, iqm_high: 95 % confidence interval of `iqm`, over seeds and tasks alone; None for one seed.
        examples: number of those that the interval is over too, in all tasks; 0 if it is over seeds alone.
    """

    mean: float
    low: float | None
    high: float | None
    iqm: float
    iqm_low: float | None
    iqm_high: float | None
    seeds: int
    tasks: int
    examples: int = 0

    @property
    def holds_zero(self) -> bool | None:
        """Whether the interval holds zero; None if there is none."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def difference(
    scores: Sequence[Mapping[Key, float]],
    baseline: Sequence[Mapping[Key, float]],
    drawn: Sequence[Drawn[Key]] = (),
    *,
    comparisons: int = 1,
) -> Difference | None:
    """Compute `scores` minus `baseline`, each with one mapping seed → score per task, over the seeds complete in both.

    With one task the interval is `interval` over the seeds, and the examples if they are given. With several tasks it
    also holds the percentiles of the stratified bootstrap of arXiv 2108.13264 with `task_bootstrap`: tasks are samples
    with replacement, and seeds anew for each of them. Every comparison uses the same draws, so the order of comparisons
    does not matter. With few seeds these alone are too narrow, as is the interval of the interquartile mean.

    Args:
        scores, baseline: seed → score, task by task.
        drawn: of each task; examples count if every task and seed has its draws.
        comparisons: how many are made together; the interval is wider by as much as they need (`widening`).

    Returns:
        None if no seed has every task in both.
    """
    paired = pair(scores, baseline, drawn)
    if paired is None:
        return None
    import numpy as np

    differences, averages, noise = paired.values, paired.averages, paired.noise
    seeds, tasks = differences.shape
    ends = interval(averages, noise, comparisons=comparisons)
    iqm_low = iqm_high = None
    if seeds > 1:
        iqm_low, iqm_high = t_interval(averages, cut=seeds // 4)
    if ends and seeds > 1 and tasks > 1:
        samples = bootstrap(differences)
        share = (1 - LEVEL) / comparisons
        sampled_low, sampled_high = np.percentile(samples.mean(axis=1), [50 * share, 100 - 50 * share]).tolist()
        ends = min(ends[0], sampled_low), max(ends[1], sampled_high)
        iqm_low, iqm_high = np.percentile(interquartile_means(samples), [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()
    return Difference(
        mean=fmean(fmean(column) for column in differences.T.tolist()),
        low=ends and ends[0],
        high=ends and ends[1],
        iqm=interquartile_mean(differences.ravel().tolist()),
        iqm_low=iqm_low,
        iqm_high=iqm_high,
        seeds=seeds,
        tasks=tasks,
        examples=paired.examples,
    )


def pair(
    scores: Sequence[Mapping[Key, float]], baseline: Sequence[Mapping[Key, float]], drawn: Sequence[Drawn[Key]] = ()
) -> Paired | None:
    """Subtract `baseline` from `scores`, over the seeds complete in both; None if there is no such seed."""
    import numpy as np

    seeds = sorted(common_keys((*scores, *baseline)), key=repr)
    if not seeds:
        return None
    pairs = list(zip(scores, baseline, strict=True))
    values = np.array([[a[seed] - b[seed] for a, b in pairs] for seed in seeds])
    resampled = [[a[seed] - b[seed] for a, b, _ in drawn if seed in a and seed in b] for seed in seeds]
    complete = all(len(of_seed) == len(pairs) for of_seed in resampled)
    noise = Noise.of([np.mean(of_seed, axis=0) for of_seed in resampled]) if complete else None
    return Paired(values, noise, sum(examples for *_, examples in drawn) if noise else 0)


def common_keys(mappings: Sequence[Mapping[Key, float]]) -> set[Key]:
    """Return the keys that every one of at least one mapping has."""
    return set(mappings[0]).intersection(*mappings[1:])


def interval(
    values: Sequence[float], noise: Noise | None = None, *, comparisons: int = 1
) -> tuple[float, float] | None:
    """Confidence interval of the mean of the values of one or more seeds; None for one seed without noise.

    Its variance is that of the mean over seeds plus that over examples. The variance between seeds also has the part of
    the examples' noise that differs from seed to seed, which `noise` has too; it is counted once. The degrees of
    freedom are Satterthwaite's, rounded down: those of the seeds where seeds vary most, many where examples do.
    `python -m bench.benchmarks.intervals` shows how often it excludes the truth.
    """
    mean, count = fmean(values), len(values)
    if count == 1 and noise is None:
        return None
    seeds = variance(values) / count if count > 1 else 0.0
    total, degrees = seeds, count - 1
    if noise:
        twice = (noise.of_one - noise.of_mean) / (count - 1) if count > 1 else 0.0
        total = max(seeds - twice, 0.0) + noise.of_mean
        fewest = max(1, count - 1)
        degrees = MANY if seeds == 0 else min(MANY, max(fewest, math.floor((count - 1) * (total / seeds) ** 2)))
    half = t_quantile(degrees) * widening(comparisons) * math.sqrt(total)
    return mean - half, mean + half


@cache
def widening(comparisons: int) -> float:
    """Factor on the width of an interval so that several together hold as often as one: Bonferroni's, of a normal.

    The t of few degrees of freedom would give a far larger one, at which three seeds could tell nothing apart.
    """
    normal, tail = NormalDist(), (1 - LEVEL) / 2
    return normal.inv_cdf(1 - tail / comparisons) / normal.inv_cdf(1 - tail)


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


def bootstrap(values: NDArray[np.floating], draws: int = DRAWS) -> NDArray[np.floating]:
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


def interquartile_means(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """`interquartile_mean` of each row of `values` (rows, n)."""
    import numpy as np

    cut = values.shape[1] // 4
    return np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(axis=1)
