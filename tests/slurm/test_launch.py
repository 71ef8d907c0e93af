"""`bench run --launcher slurm`: what is submitted, when nothing is, and what is said where that is impossible."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from false_slurm import FalseSlurm

from bench.harness import plan_file
from bench.launchers import arrays, queue, submit
from bench.launchers.arrays import Array

pytest.importorskip("submitit", reason="the extra `slurm` is not installed")

RUN = ("run", "--method", "full", "--task", "digits", "--backbone", "mlp", "--max-steps", "2", "--accelerator", "cpu")
GRID = (*RUN, "--seeds", "0,1,2,3,4")
SLURM = ("--launcher", "slurm")


def options(**given: object) -> list[str]:
    return [word for key, value in given.items() for word in ("--set", f"slurm.{key}={value}")]


def test_an_array_of_workers_on_a_plan_file(bench: Any, slurm: FalseSlurm) -> None:
    given = {"workers": 3, "array_parallelism": 2, "partition": "a,b", "time": "1-12:00:00", "gres": "gpu:1,nvme:2"}
    given |= {"constraint": "a100|h100", "cpus_per_task": 4, "mem": "32G", "account": "lab", "qos": "low"}
    outcome = bench(*GRID, *SLURM, *options(**given, setup="module load cuda && ulimit -n 4096", signal_s=30))
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        "job 41: an array of 3 workers",
        "logs: runs/slurm/41_*_0_log.out",
        "watch: bench status, squeue --job 41",
        "stop: bench cancel",
    ]
    stated = slurm.directives()
    name = stated.pop("job-name")
    assert stated == {
        "array": "0-2%2",
        "partition": "a,b",
        "time": "1-12:00:00",
        "gres": "gpu:1,nvme:2",
        "constraint": "'a100|h100'",
        "cpus-per-task": "4",
        "mem": "32G",
        "account": "lab",
        "qos": "low",
        "nodes": "1",
        "ntasks-per-node": "1",
        "open-mode": "append",
        "output": str(Path("runs/slurm").absolute() / "%A_%a_0_log.out"),
        "requeue": "",
        "signal": "USR2@30",
    }
    lines = slurm.script.splitlines()
    [worker] = [shlex.split(line) for line in lines if line.startswith("srun ")]
    plan = Path(worker[worker.index("--plan") + 1])
    verb = [sys.executable, "-P", "-m", "bench", "work", "--plan", str(plan), "--out", str(Path("runs").absolute())]
    assert worker[-9:] == verb
    assert "--cpus-per-task=4" in worker, "srun does not take it over from sbatch"
    assert lines.index("module load cuda && ulimit -n 4096") < next(i for i, one in enumerate(lines) if "srun" in one)
    assert plan.name == f"plan-{name.removeprefix('bench-')}.yaml"
    assert "slurm" not in plan.read_text().replace(str(plan.parent), "")
    there = {file.name for file in Path("runs/slurm").iterdir()}
    assert there == {plan.name, "array-41.json", "41_submission.sh"}, "no pickle"


def test_runs_on_several_nodes(bench: Any, slurm: FalseSlurm) -> None:
    """A task of the array is a worker on every node."""
    assert bench(*GRID, *SLURM, "--nodes", "4", "--batch-size", "8").code == 0
    stated = slurm.directives()
    assert (stated["nodes"], stated["ntasks-per-node"]) == ("4", "1")
    [file] = Path("runs/slurm").glob("plan-*.yaml")
    assert yaml.safe_load(file.read_text())["set"]["runtime.nodes"] == 4


def test_the_plan_file_makes_the_same_runs(bench: Any, slurm: FalseSlurm) -> None:
    planned = bench(*GRID, "--set", "optim.clip=0,1", "--retry", "--dry-run", "--json")
    bench(*GRID, "--set", "optim.clip=0,1", "--retry", *SLURM, *options(partition="gpu"))
    [file] = Path("runs/slurm").glob("plan-*.yaml")
    again = bench("run", "--plan", str(file), "--dry-run", "--json")
    ids = [[run["run_id"] for run in json.loads(one.out)["runs"]] for one in (planned, again)]
    assert ids[0] == ids[1] and len(ids[0]) == 10
    assert not plan_file.read(file).retry, "every worker would make the runs again that another has seen fail"


def test_options_of_slurm_are_no_part_of_a_run(bench: Any, slurm: FalseSlurm) -> None:
    plain = bench(*GRID, "--dry-run", "--json").out
    assert bench(*GRID, *SLURM, *options(partition="gpu", time=5), "--dry-run", "--json").out == plain
    assert not slurm.calls("sbatch"), "a dry run submits nothing"


def test_what_is_done_needs_no_worker(bench: Any, slurm: FalseSlurm) -> None:
    assert bench(*RUN, "--seeds", "0,1,2").code == 0
    some = bench(*GRID, *SLURM)
    assert some.code == 0 and slurm.directives()["array"] == "0-1%2", "two of five runs are left"
    assert bench(*RUN, "--seeds", "0,1,2", *SLURM).code == 0
    assert len(slurm.calls("sbatch")) == 1, "no array for no work"


def test_a_selection_counts_its_trials(bench: Any, slurm: FalseSlurm) -> None:
    bench(*RUN, "--select", "lr", *SLURM)
    assert slurm.directives()["array"] == "0-3%4", "three trials and a run"


def test_as_json(bench: Any, slurm: FalseSlurm) -> None:
    expected = {"job": "41", "workers": 5, "logs": "elsewhere/slurm/41_*_0_log.out"}
    assert json.loads(bench(*GRID, *SLURM, "--json", "--out", "elsewhere").out) == expected


@pytest.mark.parametrize(
    ("text", "code", "submitted"),
    [
        ("41|RUNNING|NAME\n41|PENDING|NAME", 0, 1),
        ("41|COMPLETING|NAME", 0, 2),  # it makes no more runs
        ("41|RUNNING|another", 0, 2),  # the id of another's job
        ("", 0, 2),
        ("slurm_load_jobs error: Invalid job id specified", 1, 2),  # ended long ago
    ],
)
def test_the_same_command_adds_no_second_array(
    bench: Any, slurm: FalseSlurm, text: str, code: int, submitted: int
) -> None:
    bench(*GRID, *SLURM)
    slurm.answer("squeue", text.replace("NAME", slurm.directives()["job-name"]), code)
    again = bench(*GRID, *SLURM)
    assert again.code == 0 and again.out.startswith("job 41: an array of 5 workers\n")
    assert len(slurm.calls("sbatch")) == submitted
    assert ("job 41 is still in the queue for this plan (1 pending, 1 running)" in again.err) == (submitted == 1)
    assert slurm.calls("squeue")[0].endswith("--jobs=41")
    bench(*GRID, "--max-steps", "3", *SLURM)
    assert len(slurm.calls("sbatch")) == submitted + 1, "another plan has an array of its own"


def test_an_array_as_large_as_the_site_allows(bench: Any, slurm: FalseSlurm) -> None:
    slurm.answer("scontrol", "MaxJobCount   = 10000\nMaxArraySize            = 3\nMaxDBDMsgs  = 20004")
    outcome = bench(*GRID, *SLURM)
    assert "this site's arrays have at most 3 tasks (MaxArraySize): 3 workers instead of 5" in outcome.err
    assert slurm.directives()["array"] == "0-2%3"
    slurm.answer("scontrol", "nothing of that")
    assert queue.most_tasks() is None


def test_what_slurm_says_when_it_refuses(bench: Any, slurm: FalseSlurm) -> None:
    slurm.answer("sbatch", "sbatch: error: invalid partition specified: gpus", code=1)
    refused = bench(*GRID, *SLURM, *options(partition="gpus"))
    assert refused.code == 3 and "Slurm refuses the array" in refused.err
    assert "invalid partition specified: gpus" in refused.err and "sinfo" in refused.err
    assert {file.suffix for file in Path("runs/slurm").iterdir()} == {".yaml"}, "nothing is noted"


@pytest.mark.parametrize("program", ["sbatch", "srun"])
def test_no_slurm_here(bench: Any, slurm: FalseSlurm, program: str) -> None:
    slurm.remove(program)
    outcome = bench(*GRID, *SLURM)
    assert outcome.code == 3 and f"there is no {program} on this machine" in outcome.err
    assert not Path("runs").exists()


def test_no_submitit(bench: Any, slurm: FalseSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    outcome = bench(*GRID, *SLURM)
    assert outcome.code == 3 and "pip install 'lowrank-bench[slurm]'" in outcome.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (options(partition="gpu"), "unknown namespace 'slurm'|--launcher slurm"),
        ([*SLURM, *options(partitions="gpu")], "unknown option 'partitions' of slurm|Did you mean 'partition'?"),
        ([*SLURM, *options(workers="many")], "--set slurm.workers=many: expected a whole number"),
        ([*SLURM, *options(workers=0)], "slurm.workers=0|at least 1"),
        ([*SLURM, *options(partition="a", qos="b\n#SBATCH --uid=0")], "slurm.qos has a line end"),
        ([*SLURM, "--jobs", "2"], "--jobs with --launcher slurm|slurm.workers"),
        (["--wait"], "--wait without --launcher slurm"),
        (["--launcher", "slrum"], "slurm"),
    ],
)
def test_wrong_flags(bench: Any, slurm: FalseSlurm, more: list[str], said: str) -> None:
    outcome = bench(*GRID, *more)
    assert outcome.code == 2
    assert all(part in outcome.err for part in said.split("|")), outcome.err


def test_the_options_are_shown(bench: Any) -> None:
    shown = bench("show", "slurm")
    assert shown.code == 0 and "slurm.array_parallelism" in shown.out and "MaxArraySize" in shown.out
    assert json.loads(bench("show", "slurm", "--json").out)["options"][0]["name"] == "workers"


def test_waiting_outlives_a_controller_that_is_silent(slurm: FalseSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so once, and ends when the array is known to be gone."""
    answers = [("slurm_load_jobs error: Unable to contact slurm controller", 1)] * 2
    answers += [("41|RUNNING|bench-1", 0), ("", 0)]
    clock = SimpleNamespace(sleep=lambda seconds: slurm.answer("squeue", *answers.pop(0)))
    monkeypatch.setattr(submit, "time", clock)  # of this module alone: subprocess sleeps too
    slurm.answer("squeue", *answers.pop(0))
    said: list[str] = []
    looks: list[int] = []
    submit.wait_for(Array(job="41", name="bench-1", workers=1, logs=""), lambda: looks.append(1), said.append)
    assert len(looks) == 4 and not answers
    assert len(said) == 1 and "Unable to contact slurm controller" in said[0]


def test_notes_of_arrays_are_data(tmp_path: Path) -> None:
    """A folder of records may come from anywhere."""
    array = Array(job="7", name="bench-1", workers=2, logs="x")
    arrays.note(array, tmp_path)
    for number, text in enumerate(("[]", "{", '{"job":"8; rm -rf /","name":"","workers":1,"logs":""}')):
        (tmp_path / "slurm" / f"array-bad{number}.json").write_text(text)
    (tmp_path / "slurm" / "array-folder.json").mkdir()
    assert arrays.noted(tmp_path) == [array]
    assert arrays.noted(tmp_path / "nowhere") == []
