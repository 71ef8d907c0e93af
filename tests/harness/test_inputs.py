"""A task with options of its own, from another package: who may give them, whom they reach, what they identify."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.config.overrides import Overrides
from bench.core import registry
from bench.core.errors import UsageError
from bench.harness import planner
from bench.harness.request import Request
from bench.records.data import DataRequest

TASK = '''
"""Toys."""
from dataclasses import dataclass

from bench.config.options import option
from bench.config.sections import TaskConfig
from bench.records.data import Dataset, DataRequest, Example
from bench.api.task import TaskSpec
from tasks.text.task import TextTask


@dataclass(frozen=True, kw_only=True)
class ToyConfig(TaskConfig):
    """Options."""

    noise: float = option(0.0, "Of training: the examples do not show it.", at_least=0, at_most=1)
    size: int = option(8, "Of the data: the examples show it.")


class Toy(TextTask):
    """A task."""

    Config = ToyConfig

    def __init__(self, cell: str) -> None:
        self.spec = TaskSpec(name="toy", version=1, modality="text", num_classes=2, metrics=("f1",), primary=("f1",))

    def open(self, request: DataRequest) -> Dataset:
        size = request.config.size
        rows = [Example(f"text {i}", None, i % 2) for i in range(size)]
        dev = {"dev": rows[:2]}
        return Dataset(train=rows, evaluation=dev, source="embedded", revision="1", reading={"size": size})
'''


@pytest.fixture
def planned(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., planner.Plan]]:
    """`planned("task.noise=0.5", tasks=("toy",))` is the plan of a linear head on these tasks."""
    (tmp_path / "acme_toys.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.BUILTIN["tasks"], "toy", registry.Entry("acme_toys:Toy"))
    registry.entries.cache_clear()

    def make(*settings: str, tasks: tuple[str, ...] = ("toy",), **more: Any) -> planner.Plan:
        data, backbones = DataRequest(data="embedded"), (str(tiny_bert),)
        overrides = Overrides.parse(settings)
        return planner.make_plan(
            Request(methods=("linear",), tasks=tasks, overrides=overrides, data=data, backbones=backbones, **more)
        )

    yield make
    monkeypatch.undo()
    registry.entries.cache_clear()
    sys.modules.pop("acme_toys", None)


Planned = Callable[..., planner.Plan]


def test_options_reach_the_task_that_knows_them_and_no_other(planned: Planned) -> None:
    glue, toy = planned("task.noise=0.5", "task.size=10", "task.max_length=32", tasks=("glue/cola", "toy")).runs
    assert (glue.spec.task, toy.spec.task) == ("glue/cola", "toy")
    assert glue.spec.to_json()["options"]["task"] == {"max_length": 32}
    assert toy.spec.to_json()["options"]["task"] == {"max_length": 32, "noise": 0.5}, "size is in the examples"
    assert len(toy.dataset.train) == 10
    assert not hasattr(glue.loaded.request.config, "noise")


def test_what_changes_the_run_changes_its_id(planned: Planned) -> None:
    settings = ((), ("task.noise=0.0",), ("task.noise=0.5",), ("task.size=10",))
    ids = [planned(*given).runs[0].run_id for given in settings]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_trial_has_the_options_of_the_task_that_decides(planned: Planned) -> None:
    [cell] = planned("task.noise=0.5", tasks=("glue/cola",), select=("lr",), select_on="toy").runs
    assert cell.spec.to_json()["options"]["task"] == {"max_length": 128}
    assert [trial.spec.task for trial in cell.trials] == ["toy"] * 3
    assert all(trial.spec.to_json()["options"]["task"] == {"max_length": 128, "noise": 0.5} for trial in cell.trials)


@pytest.mark.parametrize(
    ("settings", "tasks", "said"),
    [
        (("task.noise=2",), ("toy",), "task.noise=2.0"),
        (("task.noise=x",), ("toy",), "a finite number"),
        (("task.nose=0",), ("toy",), "'task.noise'"),
        (("task.noise=0",), ("glue/cola",), "an option of synthetic, toy"),
        (("task.text=x",), ("toy", "glue/cola"), "an option of table"),
    ],
)
def test_options_that_do_not_fit(
    planned: Planned, settings: tuple[str, ...], tasks: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(*settings, tasks=tasks)
    assert said in str(caught.value)


def test_a_task_of_its_own_has_no_members() -> None:
    with pytest.raises(UsageError, match="unknown task 'digits/eights'") as caught:
        planner.make_plan(Request(methods=("linear",), tasks=("digits/eights",)))
    assert caught.value.todo == "Did you mean 'digits'?"
