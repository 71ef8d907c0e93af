"""How long runs of a folder take, by what finished ones took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from bench.records.brief import Brief


class Durations:
    """Mean seconds of training and evaluation over finished runs."""

    def __init__(self, finished: Iterable[Brief]) -> None:
        self._groups: dict[str, list[float]] = defaultdict(list)
        self._work: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
        for one in finished:
            if (seconds := one.seconds) is not None:
                self._groups[one.group_id].append(seconds)
                self._work[one.spec.method, one.spec.task, bool(one.spec.holdout)].append(seconds)

    def of_group(self, group_id: str) -> float | None:
        """Return that of runs that differ by seed alone; None without any."""
        return _mean(self._groups.get(group_id))

    def of_work(self, method: str, task: str, *, trial: bool) -> float | None:
        """Return that of runs, or of trials, of a method on a task; None without any."""
        return _mean(self._work.get((method, task, trial)))


def _mean(seconds: list[float] | None) -> float | None:
    return fmean(seconds) if seconds else None
