"""`--select lr,method.rank --trials N` as its user calls it: trials are runs, made once, by one process or several."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench as api
from bench.records import record

Command = Callable[..., Any]
GRID = ("--method", "lora", "--task", "digits", "--backbone", "mlp", "--data", "embedded", "--accelerator", "cpu")
SMALL = ("--max-steps", "3", "--train-samples", "80", "--set", "backbone.width=16")
SELECT = ("--select", "lr,method.rank", "--set", "method.rank=1,2,4", "--lr", "1e-3,1e-1", "--trials", "10")


def run(command: Command, out: Path, *more: str) -> Any:
    return command("run", *GRID, *SMALL, *SELECT, "--out", str(out), *more, folder=out)


def trials_of(out: Path) -> dict[str, record.Record]:
    found, problems = record.load_all(out / record.TRIALS)
    assert not problems
    return {one.run_id: one for one in found}


def test_trials_are_made_once_and_the_best_becomes_the_run(
    command: Command, fitted: list[Any], tmp_path: Path, files: Callable[[Path], Any]
) -> None:
    out = tmp_path / "runs"
    outcome = run(command, out)
    assert outcome.code == 0, outcome.err
    made, trials = outcome.only(), trials_of(out)
    assert 8 < len(trials) <= 10 and len(fitted) == len(trials) + 1
    assert all(1e-3 <= one.spec.lr <= 1e-1 and one.spec.holdout and not one.spec.space for one in trials.values())
    best = max(trials.values(), key=lambda one: one.metrics.primary.value)
    tied = [one for one in trials.values() if one.metrics.primary.value == best.metrics.primary.value]
    assert (made.lr, made.spec.options.method["rank"]) in [(t.lr, t.spec.options.method["rank"]) for t in tied]
    assert {layer.nominal for layer in made.ranks} <= {made.spec.options.method["rank"], 10}
    assert [(t.run_id, t.value) for t in made.selection.trials] == [
        (t.run_id, trials[t.run_id].metrics.primary.value) for t in made.selection.trials
    ]
    assert {t.run_id for t in made.selection.trials} == {*trials}
    assert "optuna" in made.provenance.packages
    assert "selected)" in outcome.out and "lora (rank=" in outcome.out

    before = files(out)
    assert run(command, out).code == 0
    assert len(fitted) == len(trials) + 1 and files(out) == before, "nothing is made twice"

    again = tmp_path / "again"
    words = shlex.split(shlex.join(made.provenance.command))
    words[words.index("--out") + 1] = str(again)
    assert command(*words[1:], folder=again).only().run_id == made.run_id
    assert {*trials_of(again)} == {*trials}


def test_what_is_lost_is_made_again_and_nothing_else(command: Command, fitted: list[Any], tmp_path: Path) -> None:
    """As after a kill: the run and two trials, an early and a late one, have no record."""
    out = tmp_path / "runs"
    made = run(command, out).only()
    first, last = made.selection.trials[0].run_id, made.selection.trials[-1].run_id
    for folder in (out / made.run_id, out / record.TRIALS / first, out / record.TRIALS / last):
        (folder / record.FILE).unlink()
    count = len(fitted)
    again = run(command, out).only()
    assert len(fitted) == count + 3
    assert again.selection == made.selection and again.metrics == made.metrics


def test_processes_that_share_the_trials_make_the_same(command: Command, tmp_path: Path) -> None:
    alone, pool = run(command, tmp_path / "alone"), run(command, tmp_path / "pool", "--jobs", "2")
    assert (alone.code, pool.code) == (0, 0), pool.err
    assert pool.only().selection == alone.only().selection
    assert {*trials_of(tmp_path / "pool")} == {*trials_of(tmp_path / "alone")}
    lines = [line for line in pool.err.splitlines() if " seed 0 " in line]
    assert len(lines) == len(trials_of(tmp_path / "pool")) + 1, "each is said once"


def test_a_plan_file_and_python_ask_for_the_same(command: Command, tmp_path: Path) -> None:
    plan, out = tmp_path / "grid.yaml", tmp_path / "runs"
    assert command("plan", *GRID, *SMALL, *SELECT, "--out", str(out), "--output", str(plan), folder=out).code == 0
    assert command("work", "--plan", str(plan), folder=out).code == 0
    [made] = record.load_all(out)[0]
    [same] = api.run(
        "lora",
        "digits",
        backbones="mlp",
        data="embedded",
        accelerator="cpu",
        max_steps=3,
        train_samples=80,
        select=["lr", "method.rank"],
        trials=10,
        lr=[1e-3, 1e-1],
        set={"method.rank": [1, 2, 4], "backbone.width": 16},
        out=out,
    )
    assert same == made


@pytest.mark.parametrize("words", [["run", "--help"], ["run", *GRID, *SELECT, "--select", "method.rnk"]])
def test_help_and_wrong_names_import_neither_optuna_nor_torch(words: list[str], tmp_path: Path) -> None:
    code = f"import sys; from bench.cli import main; code = main({words!r})\n"
    code += "print(code, [name for name in ('optuna', 'torch') if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stderr.splitlines()[-1] == ("0 []" if "--help" in words else "2 []")
