"""What experiments read off records: scores, used rank, and means over seeds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from bench.records.record import DoneRecord, Record

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Record)


def score(record: DoneRecord) -> float:
    """The primary metric."""
    return record.metrics.primary.value


def effective(record: Record) -> float:
    """Effective rank of ΔW, the mean over its layers."""
    return float(np.mean([layer.effective for layer in record.ranks]))


def share(record: DoneRecord) -> float:
    """Trained parameters of all."""
    return record.params.trainable / record.params.total


def grouped(records: Iterable[R], key: Callable[[R], K], value: Callable[[R], float]) -> dict[K, list[float]]:
    """Values by key, in the order of the records."""
    found: dict[K, list[float]] = {}
    for record in records:
        found.setdefault(key(record), []).append(value(record))
    return found


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return float(np.mean(values))


def deviation(values: Sequence[float]) -> float:
    """Standard deviation over seeds, n − 1; 0 of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def words(values: Sequence[float], digits: int = 3) -> str:
    """`0.412 ± 0.021`, or the value alone where there is one."""
    said = f"{mean(values):.{digits}f}"
    return f"{said} ± {deviation(values):.{digits}f}" if len(values) > 1 else said


def listed(text: str) -> list[str]:
    """Elements of `a,b,c`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's correlation with ties at their mean rank; 0 where one of the two is constant."""
    from scipy.stats import spearmanr

    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return 0.0
    found: Any = spearmanr(x, y)
    return float(found.statistic)


def integers(text: str) -> tuple[int, ...]:
    """Read `0,1,2`, the seeds of an experiment."""
    return tuple(int(part) for part in listed(text))
