"""How often intervals are wrong, and what they can tell apart, on simulated methods whose accuracies are known.

    python -m bench.benchmarks.intervals

An example is solved if a normal number exceeds a threshold. The number adds up how easy the example is for all methods,
for this method, and for this run of it; a seed shifts all examples of its run. Accuracies are true over all examples
and seeds, of which a comparison sees some. The intervals are those of the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

import numpy as np

from bench.core.text import table
from leaderboard.tables.intervals import Difference, Drawn, difference
from leaderboard.tables.resampling import draws, resampled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from leaderboard.tables.resampling import Weights

EXAMPLES = 350
ACCURACY = 0.8
SHARED, METHOD, RUN = 0.55, 0.25, 0.2
"""Shares of the variance of an example: for all methods, for one, for one run. Two seeds agree on 88 % of examples."""
SHIFTS = {0.0: "none", 0.05: ".01", 0.1: ".03"}
"""Standard deviation of a seed's shift, and of the true accuracies of seeds that follows from it."""


@dataclass(frozen=True)
class Method:
    """Whether each run of a simulated method solves each example: (seeds, examples)."""

    solved: NDArray[np.bool_]

    @property
    def scores(self) -> dict[int, float]:
        """Accuracy by seed."""
        return {seed: float(run.mean()) for seed, run in enumerate(self.solved)}

    @cached_property
    def drawn(self) -> dict[int, NDArray[np.floating]]:
        """Accuracy in each draw of the examples, by seed."""
        labels = np.ones(self.solved.shape[1], dtype=np.int64)
        found = (resampled(["accuracy"], labels, np.stack([~run, run], axis=1), _weights()) for run in self.solved)
        return {seed: one for seed, one in enumerate(found) if one is not None}


def simulate(rng: np.random.Generator, accuracies: Sequence[float], *, seeds: int, shift: float) -> list[Method]:
    """Draw one method for each true accuracy, all on the same examples; `shift` is the deviation of a seed's."""
    shared = rng.normal(size=EXAMPLES) * SHARED**0.5
    made: list[Method] = []
    for accuracy in accuracies:
        ease = shared + rng.normal(size=EXAMPLES) * METHOD**0.5
        runs = rng.normal(size=(seeds, EXAMPLES)) * RUN**0.5 + rng.normal(size=(seeds, 1)) * shift
        threshold = NormalDist(0, (1 + shift**2) ** 0.5).inv_cdf(1 - accuracy)
        made.append(Method(ease + runs > threshold))
    return made


def compared(a: Method, b: Method, *, comparisons: int = 1, examples: bool = True) -> Difference:
    """Compare B with A, as tables do."""
    drawn = [Drawn(b.drawn, a.drawn, EXAMPLES)] if examples else []
    found = difference([b.scores], [a.scores], drawn, comparisons=comparisons)
    assert found
    return found


def told_apart(
    rng: np.random.Generator, points: float, *, seeds: int, shift: float, repeats: int, examples: bool = True
) -> float:
    """Share of comparisons that say better or worse of two methods `points` apart."""
    pairs = (simulate(rng, (ACCURACY, ACCURACY + points), seeds=seeds, shift=shift) for _ in range(repeats))
    return fmean(compared(*pair, examples=examples).holds_zero is False for pair in pairs)


def best_is_lost(rng: np.random.Generator, rows: int, *, seeds: int, shift: float, repeats: int) -> tuple[float, float]:
    """In tables of equal rows: how often a given row is set apart from the best, and how often any is."""
    lost: list[int] = []
    for _ in range(repeats):
        methods = simulate(rng, [ACCURACY] * rows, seeds=seeds, shift=shift)
        best = max(methods, key=lambda method: method.solved.mean())
        others = (method for method in methods if method is not best)
        lost.append(sum(compared(best, other, comparisons=rows - 1).holds_zero is False for other in others))
    return fmean(lost) / rows, fmean(map(bool, lost))


@cache
def _weights() -> Weights:
    return np.concatenate([*draws([0], EXAMPLES)])


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="comparisons for each number (default: 1000)")
    repeats: int = parser.parse_args().repeats
    rng = np.random.default_rng(0)

    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    lines: list[list[str]] = []
    for shift, deviation in SHIFTS.items():
        for seeds in (1, 3, 5, 10):
            shares = [
                told_apart(rng, points, seeds=seeds, shift=shift, repeats=repeats) for points in (0, 0.02, 0.04, 0.08)
            ]
            alone = told_apart(rng, 0, seeds=seeds, shift=shift, repeats=repeats, examples=False)
            lines.append([deviation, str(seeds), *map(percent, shares), percent(alone) if seeds > 1 else "–"])
    print(table(("deviation of seeds", "seeds", "equal", "2 points", "4", "8", "equal, seeds alone"), lines))
    lines = []
    for rows in (2, 4, 8, 16):
        for seeds in (3, 5):
            shares = best_is_lost(rng, rows, seeds=seeds, shift=0.05, repeats=max(1, repeats // rows))
            lines.append([str(rows), str(seeds), *map(percent, shares)])
    print("\n" + table(("equal rows", "seeds", "a given one is set apart", "any is"), lines))


if __name__ == "__main__":
    main()
