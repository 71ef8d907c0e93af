"""The course of the primary metric, and its best value, which is never the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.records import course
from bench.records.consistency import contradictions
from bench.records.course import Point
from bench.records.schema import Record

MakeRecord = Callable[..., Record]


def rows(values: list[float], name: str = "matthews", split: str = "dev") -> list[dict[str, Any]]:
    """An evaluation after every tenth step."""
    return [{"step": 10 * i, "metrics": {split: {name: value}}} for i, value in enumerate(values, 1)]


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_is_the_first_of_the_extreme_values(make_record: MakeRecord, higher: bool) -> None:
    values = np.random.default_rng(0).integers(-5, 5, 200) / 5  # with many ties
    record = make_record(evaluations=rows(values.tolist()), metrics={"primary": {"higher_is_better": higher}})
    at = int(values.argmax() if higher else values.argmin())  # numpy takes the first of equal ones
    assert course.best(record) == Point(10 * (at + 1), values[at])
    assert [*course.course(record)] == [(10 * i, value) for i, value in enumerate(values, 1)]


def test_the_mean_of_two_metrics_is_followed_as_one(make_record: MakeRecord) -> None:
    pairs = [(0.5, 0.75), (0.75, 1.0), (1.0, 0.25)]
    made = [{"step": i, "metrics": {"dev": {"accuracy": a, "f1": f}}} for i, (a, f) in enumerate(pairs, 1)]
    record = make_record(evaluations=made, metrics={"primary": {"name": "accuracy+f1"}})
    assert course.course(record) == [(1, 0.625), (2, 0.875), (3, 0.625)]
    assert course.best(record) == (2, 0.875)


def test_without_evaluations_of_the_primary_metric_there_is_none(make_record: MakeRecord) -> None:
    assert course.best(make_record()) is None
    assert course.best(make_record(evaluations=rows([0.5], name="accuracy"))) is None
    assert course.best(make_record(evaluations=rows([0.5], split="test"))) is None
    error = {"what": "it broke", "known": "", "todo": ""}
    assert course.best(make_record(evaluations=rows([0.5]), state="failed", metrics=None, error=error)) is None


@pytest.mark.parametrize(
    ("evaluations", "reason"),
    [
        (rows([0.5, 1.5]), "evaluations[1].metrics.dev.matthews: 1.5, outside of -1 to 1"),
        (rows([0.5, 0.25])[::-1], "evaluations[1].step: 10, after step 20"),
        (rows([0.5]) * 2, "evaluations[1].step: 10, after step 10"),
        ([{"step": 0, "metrics": {}}], "evaluations[0].step: 0, after step 0"),
        (rows([0.5] * 1000), "evaluations[999].step: 10000, but cost.steps is 150"),
    ],
)
def test_a_course_that_cannot_be_is_a_contradiction(
    make_record: MakeRecord, evaluations: list[dict[str, Any]], reason: str
) -> None:
    assert [*contradictions(make_record(evaluations=evaluations, cost={"steps": 150}))] == [reason]
    assert not [*contradictions(make_record(evaluations=rows([0.5, 0.25]), cost={"steps": 150}))]
