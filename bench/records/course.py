"""The course of the primary metric during training, and the best value of it.

The best one is chosen on the very examples that it is scored on. It stands beside the score, which is that of the last
step, and never takes its place.
"""

from __future__ import annotations

from typing import NamedTuple

from bench.records.schema import Record


class Point(NamedTuple):
    """The primary metric after `step` optimiser steps."""

    step: int
    value: float


def course(record: Record) -> list[Point]:
    """Return the primary metric at each evaluation during training; empty if there were none, or the run has no score.

    An evaluation that lacks the metric is left out.
    """
    if not record.metrics:
        return []
    primary, points = record.metrics.primary, list[Point]()
    for row in record.evaluations:
        scores = row.metrics.get(primary.split, {})
        names = primary_names(primary.name, scores)
        if all(name in scores for name in names):
            points.append(Point(row.step, sum(scores[name] for name in names) / len(names)))
    return points


def best(record: Record) -> Point | None:
    """Return the best point of the course, of equal ones the earliest; None without a course."""
    points = course(record)
    if not record.metrics or not points:
        return None
    sign = 1 if record.metrics.primary.higher_is_better else -1
    return max(points, key=lambda point: (sign * point.value, -point.step))


def primary_names(name: str, scores: dict[str, float]) -> list[str]:
    """Return the metrics whose mean is the primary one: `accuracy+f1` stands for two, unless `scores` has that name."""
    return [name] if name in scores else name.split("+")
