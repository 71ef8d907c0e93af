"""Evaluations during training: at the steps asked for, whatever the micro batches, and without a trace in training."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lab import CLASSES, Toy, toy

from bench.api.method import Method
from bench.config.sections import SpectraConfig
from bench.records.data import Example
from bench.training import callbacks
from bench.training.callbacks import course_steps, evaluation_steps


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


@pytest.mark.parametrize(
    ("course", "steps", "per_epoch", "expected"),
    [
        (2, 7, 3, [2, 4, 6, 7]),
        (2, 6, 3, [2, 4, 6]),
        (7, 7, 3, [7]),
        ("epoch", 9, 3, [3, 6, 9]),
        ("epoch", 8, 3, [3, 6, 8]),
        ("epoch", 2, 3, [2]),
        ("epoch", 3, 1, [1, 2, 3]),
    ],
)
def test_steps_of_a_course_end_with_the_last(course: Any, steps: int, per_epoch: int, expected: list[int]) -> None:
    assert sorted(course_steps(course, steps, per_epoch=per_epoch)) == expected


@pytest.mark.parametrize("micro", [0, 4])
@pytest.mark.parametrize(
    ("course", "budget", "expected"),
    [
        (2, {"max_steps": 5}, [2, 4, 5]),
        ("epoch", {"max_steps": None, "epochs": 1.5}, [3, 5]),
        ("epoch", {"max_steps": 4, "batch_size": 36}, [1, 2, 3, 4]),
    ],
)
def test_a_course_is_that_of_the_run_itself(
    lab: Any, course: Any, budget: dict[str, Any], expected: list[int], micro: int
) -> None:
    """34 examples in batches of 16 are three steps; a batch of 36 holds them all."""
    run = lab.run(lab.spec("linear", evaluate=course, runtime={"micro_batch": micro}, **budget))
    assert [row.step for row in run.result.evaluations] == expected
    assert run.result.evaluations[-1].metrics == run.result.metrics.all


def test_an_epoch_ends_where_every_example_was_seen(lab: Any) -> None:
    """The order of batches that the run itself has, with fewer examples than train: 2 steps of 16 for 20 of them."""
    run = lab.run(lab.spec("linear", max_steps=5, train_samples=20, evaluate="epoch"))
    assert [row.step for row in run.result.evaluations] == [2, 4, 5]
    for end in (2, 4):
        seen = [int(i) for step in (end - 2, end - 1) for i in run.data.batches[step]]
        assert sorted(seen) == list(range(20))


def test_a_course_takes_the_place_of_the_methods_own_evaluations(lab: Any) -> None:
    run = lab.run(lab.spec("dropout", max_steps=6, evaluate=3, options={"rate": 0.1}))
    assert [row.step for row in run.result.evaluations] == [3, 6]


def test_an_early_evaluation_scores_the_network_of_that_step(lab: Any) -> None:
    """Against a run that ends there: a constant learning rate, so that both take the same steps."""
    optim = {"schedule": "constant", "warmup": 0.0}
    course = lab.run(lab.spec("full", max_steps=6, evaluate=2, optim=optim)).result
    for row in course.evaluations:
        assert row.metrics == lab.run(lab.spec("full", max_steps=row.step, optim=optim)).result.metrics.all


def test_evaluating_changes_neither_training_nor_what_is_tracked(lab: Any) -> None:
    """Bit for bit, with dropout at work and spectra of everything."""
    spectra = SpectraConfig(of="updates,weights,gradients,steps,activations", every=2)
    spec = lab.spec("full", max_steps=7, backbone={"dropout": 0.1}, head={"dropout": 0.1}).with_options(spectra=spectra)
    plain, course = lab.run(spec), lab.run(spec.with_(evaluate=1))
    assert [row.step for row in course.result.evaluations] == [1, 2, 3, 4, 5, 6, 7]
    assert course.losses == plain.losses
    ours, theirs = course.method.state_dict(), plain.method.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    found, expected = course.result.to_json(), plain.result.to_json()
    del found["evaluations"], found["cost"], expected["cost"]
    assert found == expected


def test_training_time_leaves_evaluation_out(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that a step takes a second of, and an evaluation 100."""
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0])
    monkeypatch.setattr(callbacks, "time", clock)
    evaluate = Method.evaluate

    def slow(*args: Any) -> dict[str, float]:
        now[0] += 100
        return evaluate(*args)

    def on_step(step: int) -> None:
        now[0] += 1

    monkeypatch.setattr(Method, "evaluate", slow)
    run = lab.run(lab.spec("linear", max_steps=5, evaluate=2), on_step=on_step)
    assert (len(run.result.evaluations), run.result.cost.train_s) == (3, 5.0)


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
