"""Scores of a run on resampled examples, all draws at once: metrics as functions of how often each example is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = NDArray[np.float32]
    """(draws, N): how often each draw has each example; a row's sum is N."""
    Values = NDArray[np.floating]

DRAWS = 500
"""Bootstrap samples of the examples. The standard error that follows from them is itself known to 3 %."""
MOST_WEIGHTS = 2**24
"""Weights that are held at a time (64 MB)."""


def draws(seed: Sequence[int], examples: int) -> Iterator[Weights]:
    """Draw `examples` of as many with replacement, `DRAWS` times, in blocks of draws; equal arguments, equal draws."""
    import numpy as np

    rng = np.random.default_rng(seed)
    block = max(1, min(DRAWS, MOST_WEIGHTS // examples))
    for start in range(0, DRAWS, block):
        count = min(block, DRAWS - start)
        drawn = rng.integers(examples, size=(count, examples))
        drawn += np.arange(count)[:, None] * examples
        yield np.bincount(drawn.ravel(), minlength=count * examples).reshape(count, examples).astype(np.float32)


def resampled(
    names: Sequence[str], labels: NDArray[np.generic], outputs: NDArray[np.floating], weights: Weights
) -> Values | None:
    """The mean of the metrics `names` in each draw (draws,); None if one of them has no form here.

    Args:
        names: as in `bench.api.metrics`, whose definitions these are.
        labels, outputs: (N, …) of the examples; classes and logits (N, classes), or numbers.
        weights: (draws, N).
    """
    import numpy as np

    classes = outputs.ndim == 2 and labels.ndim == 1 and labels.dtype.kind in "iu"
    if classes and set(names) <= _OF_COUNTS.keys():
        counts = Counts(labels, outputs.argmax(axis=1), outputs.shape[1], weights, pairs=set(names) != {"accuracy"})
        values = [_OF_COUNTS[name](counts) for name in names]
    elif not classes and labels.shape == outputs.shape and set(names) <= _OF_NUMBERS.keys():
        if labels.ndim > 1 and not set(names) <= _OF_ERRORS.keys():
            return None
        values = [_OF_NUMBERS[name](labels.astype(np.float64), outputs.astype(np.float64), weights) for name in names]
    else:
        return None
    return np.mean(values, axis=0)


class Counts:
    """Weighted counts (draws, classes) of class predictions: `hits`, `labelled`, `predicted`; and `right` (draws,)."""

    def __init__(
        self,
        labels: NDArray[np.generic],
        predictions: NDArray[np.integer],
        classes: int,
        weights: Weights,
        *,
        pairs: bool,
    ) -> None:
        import numpy as np

        correct = labels == predictions
        self.examples = float(len(labels))
        self.right = (weights @ correct.astype(np.float32)).astype(np.float64)
        if pairs:
            named = np.arange(classes)
            of_label, of_prediction = ((given[:, None] == named).astype(np.float32) for given in (labels, predictions))
            self.labelled = (weights @ of_label).astype(np.float64)
            self.predicted = (weights @ of_prediction).astype(np.float64)
            self.hits = (weights @ (of_label * correct[:, None])).astype(np.float64)


def _accuracy(counts: Counts) -> Values:
    return counts.right / counts.examples


def _balanced_accuracy(counts: Counts) -> Values:
    """Mean recall of the classes that the labels have."""
    there = counts.labelled > 0
    return _ratio(counts.hits, counts.labelled).sum(axis=1) / there.sum(axis=1)


def _f1(counts: Counts) -> Values:
    """Of class 1 if there are two, else the mean over the classes that labels or predictions have."""
    of_class = _ratio(2 * counts.hits, counts.labelled + counts.predicted)
    if of_class.shape[1] == 2:
        return of_class[:, 1]
    return _macro_f1(counts)


def _macro_f1(counts: Counts) -> Values:
    both = counts.labelled + counts.predicted
    return _ratio(2 * counts.hits, both).sum(axis=1) / (both > 0).sum(axis=1)


def _matthews(counts: Counts) -> Values:
    """Matthews' correlation of any number of classes (Gorodkin 2004); 0 where all labels, or predictions, are equal."""
    n, labelled, predicted = counts.examples, counts.labelled, counts.predicted
    covariance = n * counts.hits.sum(axis=1) - (labelled * predicted).sum(axis=1)
    spreads = (n**2 - (labelled**2).sum(axis=1)) * (n**2 - (predicted**2).sum(axis=1))
    return _ratio(covariance, spreads**0.5)


def _pearson(labels: Values, outputs: Values, weights: Weights) -> Values:
    """Pearson's correlation; 0 where all labels, or outputs, are equal."""
    import numpy as np

    x, y = labels - labels.mean(), outputs - outputs.mean()  # so that no digits cancel
    moments = weights @ np.stack([x, y, x * x, y * y, x * y], axis=1) / len(x)
    return _correlation(*moments.T)


def _spearman(labels: Values, outputs: Values, weights: Weights) -> Values:
    """Pearson's correlation of the ranks in each draw, where equal values share the mean of their ranks."""
    import numpy as np

    x, y = (_ranks(values, weights) for values in (labels, outputs))
    products = (np.einsum("ij,ij,ij->i", weights, a, b) for a, b in ((x, x), (y, y), (x, y)))
    return _correlation(np.zeros(len(x)), np.zeros(len(x)), *products)


def _ranks(values: Values, weights: Weights) -> Values:
    """The rank of each example in each draw (draws, N), minus the mean rank and divided by N: between -½ and ½."""
    import numpy as np

    distinct, group = np.unique(values, return_inverse=True)
    order = group.argsort(kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = (tied.cumsum(axis=1) - tied / 2) / len(values) - 0.5  # whole numbers below 2²⁴ are exact in float32
    return np.take(middle, group, axis=1)


def _correlation(x: Values, y: Values, xx: Values, yy: Values, xy: Values) -> Values:
    """Of the means of x, y, x², y² and xy."""
    import numpy as np

    spread_x, spread_y = xx - x * x, yy - y * y
    flat = (spread_x <= 1e-12 * xx) | (spread_y <= 1e-12 * yy)
    return np.where(flat, 0.0, (xy - x * y) / np.sqrt(np.where(flat, 1.0, spread_x * spread_y)))


def _mse(labels: Values, outputs: Values, weights: Weights) -> Values:
    """Mean squared error over the numbers that were observed."""
    import numpy as np

    squares, seen = _squares(np.where(np.isnan(labels), np.nan, outputs - labels)), _squares(labels * 0 + 1)
    return _ratio(weights @ squares, weights @ seen)


def _relative_error(labels: Values, outputs: Values, weights: Weights) -> Values:
    import numpy as np

    error, total = (np.float64(weights @ _squares(values)) for values in (outputs - labels, labels))
    return np.sqrt(np.where(total > 0, error / np.where(total > 0, total, 1.0), error))


def _squares(values: Values) -> Values:
    """Sum of squares of each example (N,), NaN left out."""
    import numpy as np

    return np.nansum(values.reshape(len(values), -1) ** 2, axis=1)


def _ratio(above: Values, below: Values) -> Values:
    """Their quotient, 0 where `below` is."""
    import numpy as np

    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)


_OF_COUNTS: dict[str, Callable[[Counts], Values]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
}
_OF_ERRORS = {"mse": _mse, "relative_error": _relative_error}
_OF_NUMBERS: dict[str, Callable[[Values, Values, Weights], Values]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    **_OF_ERRORS,
}
