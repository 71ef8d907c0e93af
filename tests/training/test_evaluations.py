"""Evaluations during training: as many as asked for, evenly spaced, whatever the micro batches."""

from __future__ import annotations

from typing import Any

import pytest

from bench.training.callbacks import evaluation_steps


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        (7, 4, [2, 4, 6, 7]),
        (20, 4, [5, 10, 15, 20]),
        (150, 4, [38, 75, 113, 150]),
        (3, 4, [1, 2, 3]),
        (5, 1, [5]),
        (5, 0, []),
    ],
)
def test_steps_are_evenly_spaced_and_end_with_the_last(steps: int, count: int, expected: list[int]) -> None:
    assert sorted(evaluation_steps(steps, count)) == expected


@pytest.mark.parametrize("micro", [0, 4])
def test_a_run_is_evaluated_as_often_as_asked_for(lab: Any, micro: int) -> None:
    spec = lab.spec("dropout", max_steps=7, options={"evaluations": 4, "rate": 0.1}, runtime={"micro_batch": micro})
    run = lab.run(spec)
    assert [row.step for row in run.result.evaluations] == [2, 4, 6, 7]
