"""Evaluations during training: as many as asked for, evenly spaced, whatever the micro batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lab import CLASSES, Toy, toy

from bench.records.data import Example
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


@pytest.mark.parametrize("split", ["dev", "other"])
def test_outputs_of_one_class_are_a_warning(lab: Any, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts are equal, so the outputs are too; 99 of 100 labels are of one class."""
    task = toy(CLASSES)
    rows = [Example(text="ab", text_pair=None, label=int(i == 0)) for i in range(100)]
    dataset = replace(task.dataset, evaluation={split: rows})
    monkeypatch.setitem(lab.tasks, CLASSES.name, Toy(CLASSES, dataset))
    spec = lab.spec("linear", lr=0.0, max_steps=1)
    result = lab.run(spec).result
    assert result.warnings[0] == f"the outputs name one class only on {split}: no class was learned"
    assert result.metrics.majority == {split: 0.99} and result.metrics.all[split]["accuracy"] == pytest.approx(
        0.99, abs=1e-6
    )


def test_outputs_of_several_classes_and_numbers_are_none(lab: Any) -> None:
    classes = lab.run(lab.spec("full")).result
    labels = [row.label for row in lab.tasks[CLASSES.name].dataset.evaluation["dev"]]
    assert classes.metrics.majority == {"dev": max(map(labels.count, labels)) / len(labels)}
    numbers = lab.run(lab.spec("linear", task="toy/scores", max_steps=1)).result
    assert numbers.metrics.majority == {} and "majority" not in numbers.metrics.to_json()
    assert not [text for text in (*classes.warnings, *numbers.warnings) if "one class" in text]
