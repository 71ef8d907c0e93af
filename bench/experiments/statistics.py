"""Numbers of records, their means over seeds, and correlations."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

import numpy as np

from bench.figures import Series
from bench.records.record import DoneRecord, Record

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Record)
X = TypeVar("X", bound=float | str)


def score(record: DoneRecord) -> float:
    """Return the primary metric."""
    return record.metrics.primary.value


def effective_rank(record: Record) -> float:
    """Return the effective rank of ΔW, the mean over its layers."""
    return float(np.mean([layer.effective for layer in record.ranks]))


def trained_share(record: DoneRecord) -> float:
    """Return the share of the parameters that train."""
    return record.params.trainable / record.params.total


def grouped(records: Iterable[R], key: Callable[[R], K], value: Callable[[R], float]) -> dict[K, list[float]]:
    """Group the values of records by key, in the order of the records."""
    groups: dict[K, list[float]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(value(record))
    return groups


def mean(values: Sequence[float]) -> float:
    """Return the mean as a Python float."""
    return float(np.mean(values))


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds (n − 1), which is 0 for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def format_mean(values: Sequence[float], digits: int = 3) -> str:
    """Format mean and deviation, `0.412 ± 0.021`; a single value stands alone."""
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {deviation(values):.{digits}f}" if len(values) > 1 else text


def mean_series(
    name: str,
    groups: Mapping[X, Sequence[float]],
    form: Literal["line", "points", "dashed", "bars"] = "line",
    *,
    whiskers: bool = True,
) -> Series:
    """Make a series of the means of groups, x → values over seeds; whiskers show their deviations."""
    spread = [deviation(values) for values in groups.values()] if whiskers else ()
    x = cast("Sequence[float] | Sequence[str]", [*groups])
    return Series(name=name, x=x, y=[mean(values) for values in groups.values()], spread=spread, form=form)


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Return Spearman's correlation (ties get their mean rank), which is 0 if one of the two is constant."""
    from scipy.stats import spearmanr

    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return 0.0
    result: Any = spearmanr(x, y)
    return float(result.statistic)
