"""Numbers of records, their means over seeds, and correlations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np

from bench.figures import Form, Series
from bench.records.record import DoneRecord, Record

X = TypeVar("X", bound=float | str)


def score(record: DoneRecord) -> float:
    return record.metrics.primary.value


def effective_rank(record: Record) -> float:
    """Return the effective rank of ΔW, the mean over its layers."""
    return mean([layer.effective for layer in record.ranks])


def by_method(
    groups: Mapping[X, Iterable[DoneRecord]], methods: Iterable[str], value: Callable[[DoneRecord], float]
) -> dict[tuple[str, X], list[float]]:
    """Return the values of records by method and group: over seeds, in the order of the records."""
    return {(m, x): [value(r) for r in group if r.spec.method == m] for m in methods for x, group in groups.items()}


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds (n − 1), which is 0 for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def format_mean(values: Sequence[float], digits: int = 3) -> str:
    """Format mean and deviation, `0.412 ± 0.021`; a single value stands alone."""
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {deviation(values):.{digits}f}" if len(values) > 1 else text


def mean_series(
    name: str, groups: Mapping[X, Sequence[float]], form: Form = "line", *, whiskers: bool = True
) -> Series:
    """Make a series of the means of groups, x → values over seeds; whiskers show their deviations."""
    spread = [deviation(values) for values in groups.values()] if whiskers else ()
    x = cast("Sequence[float] | Sequence[str]", [*groups])
    return Series(name=name, x=x, y=[mean(values) for values in groups.values()], spread=spread, form=form)


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return Spearman's correlation (ties get their mean rank), which is 0 if one of the two is constant."""
    from scipy.stats import spearmanr

    return float(np.asarray(spearmanr(x, y))[0]) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0
