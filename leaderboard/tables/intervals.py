"""Paired differences of scores, their interquartile mean, and bootstrap confidence intervals of both."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)

DRAWS = 2000
"""Bootstrap samples of an interval."""
LEVEL = 0.95
"""Share of the bootstrap distribution within an interval, which has equal tails."""


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

    Intervals are percentiles of the stratified bootstrap of arXiv 2108.13264 with `task_bootstrap`: tasks are samples
    with replacement, and seeds anew for each of them. Every comparison uses the same draws, so the order of comparisons
    does not matter. With few seeds a bootstrap interval is too narrow. With one task only seeds are samples.
    None if no seed has every task in both.
    """
    import numpy as np

    seeds = sorted(common_keys((*scores, *baseline)), key=repr)
    if not seeds:
        return None
    pairs = list(zip(scores, baseline, strict=True))
    differences = np.array([[a[seed] - b[seed] for a, b in pairs] for seed in seeds])
    low = high = iqm_low = iqm_high = None
    if len(seeds) > 1:
        samples = bootstrap(differences)
        ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
        low, high = np.percentile(samples.mean(axis=1), ends).tolist()
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
