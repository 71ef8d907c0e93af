"""How far two rows are apart, and how sure that is: paired differences, their interquartile mean, intervals."""

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
"""Share of the bootstrap distribution that an interval holds, the same cut off at both ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row's scores minus the baseline's, of the same tasks and seeds.

    Attributes:
        mean: over seeds and tasks, every task alike.
        low, high: 95 % interval of `mean`; None for one seed.
        iqm: interquartile mean over seeds and tasks: the mean of the middle half (arXiv 2108.13264).
        iqm_low, iqm_high: 95 % interval of `iqm`; None for one seed.
        seeds, tasks: how many there are.
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
    """`scores` minus `baseline`, each a mapping seed → score per task, over the seeds that have every task in both.

    Intervals are percentiles of the stratified bootstrap of arXiv 2108.13264 with `task_bootstrap`: tasks are drawn
    with replacement, and for each the seeds anew. The draws are the same for every comparison, so nothing depends on
    order. Of few seeds a bootstrap interval is too narrow; of one task it is over seeds alone.

    Returns:
        None where no seed has every task in both.
    """
    import numpy as np

    shared = set.intersection(*(set(cell) for cell in (*scores, *baseline)))
    seeds = sorted(shared, key=repr)
    if not seeds:
        return None
    pairs = list(zip(scores, baseline, strict=True))
    apart = np.array([[mine[seed] - theirs[seed] for mine, theirs in pairs] for seed in seeds])
    low = high = iqm_low = iqm_high = None
    if len(seeds) > 1:
        drawn = bootstrap(apart)
        ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
        low, high = (float(end) for end in np.percentile(drawn.mean(axis=1), ends))
        iqm_low, iqm_high = (float(end) for end in np.percentile(interquartile(drawn), ends))
    return Difference(
        mean=fmean(fmean(column) for column in apart.T.tolist()),
        low=low,
        high=high,
        iqm=middle(apart.ravel().tolist()),
        iqm_low=iqm_low,
        iqm_high=iqm_high,
        seeds=len(seeds),
        tasks=len(pairs),
    )


def bootstrap(values: NDArray[np.float64], draws: int = DRAWS) -> NDArray[np.float64]:
    """Bootstrap samples (draws, seeds·tasks) of `values` (seeds, tasks): tasks drawn, then seeds for each of them."""
    import numpy as np

    seeds, tasks = values.shape
    draw = np.random.default_rng(0)
    task = draw.integers(tasks, size=(draws, 1, tasks))
    seed = draw.integers(seeds, size=(draws, seeds, tasks))
    return values[seed, task].reshape(draws, -1)


def middle(values: Sequence[float]) -> float:
    """The interquartile mean of a few numbers: of the middle half, a quarter of them rounded down, as scipy does."""
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])


def interquartile(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`middle` of each row of `values` (rows, n): for the many rows of a bootstrap."""
    import numpy as np

    cut = values.shape[1] // 4
    ordered = np.sort(values, axis=1)
    return ordered[:, cut : values.shape[1] - cut].mean(axis=1)
