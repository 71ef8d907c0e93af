"""`bench plan`: its file is what `bench run --plan` needs, on standard output or written, and nothing is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench
from bench.cli import main
from bench.core.errors import ENVIRONMENT, OK, USAGE, UsageError
from bench.harness.plan_file import read
from bench.harness.planner import make_plan
from bench.harness.request import make_request

WORDS = ("plan", "--method", "lora,full", "--task", "digits", "--seeds", "0,1", "--set", "method.rank=2,4")
WANTED = make_request(methods=["lora", "full"], tasks="digits", seeds=[0, 1], set={"method.rank": "2,4"})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_output_and_file_are_the_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WORDS) == OK
    (folder / "a.yaml").write_text(capsys.readouterr().out)
    assert not (folder / "runs").exists()
    assert main([*WORDS, "--output", "b c.yaml"]) == OK
    out, err = capsys.readouterr()
    assert out == "" and "next: bench run --plan 'b c.yaml'" in err
    assert (folder / "a.yaml").read_text() == (folder / "b c.yaml").read_text()
    assert read(folder / "a.yaml") == WANTED
    assert main([*WORDS, "--json"]) == OK
    stated = json.loads(capsys.readouterr().out)
    assert (stated["method"], stated["seeds"]) == (["lora", "full"], [0, 1])
    assert main(["plan", "--plan", "a.yaml", "--seeds", "7", "--output", "more.yaml"]) == OK
    assert read(folder / "more.yaml").seeds == (7,)


def test_run_and_python_read_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--output", "grid.yaml"]) == OK
    assert main(["run", "--plan", "grid.yaml", "--dry-run", "--json"]) == OK
    shown = [run["run_id"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert shown == [run.run_id for run in make_plan(WANTED).runs] and len(shown) == 6
    assert [run.run_id for run in bench.plan(plan="grid.yaml").runs] == shown
    [one] = bench.plan("lora", plan="grid.yaml", seeds=1, set={"method.rank": 2}).runs
    assert one.run_id in shown and one.spec.seed == 1
    with pytest.raises(UsageError, match="--method is missing"):
        bench.plan(tasks="digits")


def test_wrong_flags_write_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--set", "method.rnk=2", "--output", "grid.yaml"]) == USAGE
    assert main(["plan", "--method", "lora"]) == USAGE
    (folder / "file").touch()
    assert main([*WORDS, "--output", "file/grid.yaml"]) == ENVIRONMENT
    assert main([*WORDS, "--dry-run"]) == USAGE
    assert "unknown flag '--dry-run'" in capsys.readouterr().err
    assert not (folder / "grid.yaml").exists()
