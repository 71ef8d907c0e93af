"""On a real Slurm of two nodes: an array of workers, signals, requeues, `bench cancel`, and nothing done twice."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import client, cluster, missing, wait_for

from bench.launchers import submit
from bench.records import record
from bench.records.record import Record

pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"no Slurm can be started here: {REASON}")

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os
if (folder := os.environ.get("HOLD_IN")) and "SLURM_ARRAY_TASK_ID" in os.environ:
    import pathlib, time
    from bench.harness.progress import Progress

    mark = pathlib.Path(folder, os.environ["SLURM_ARRAY_TASK_ID"])

    def step(self, step, loss):
        if step == 4 and not mark.exists():
            mark.touch()
            while True:
                time.sleep(0.05)

    Progress.step = step
"""
"""A worker stops at the fourth step of its first run until a signal comes; after a requeue it does not."""
RUN = ("run", "--method", "full", "--task", "digits", "--backbone", "mlp", "--max-steps", "6", "--accelerator", "cpu")
SLURM = ("--launcher", "slurm", "--set", "slurm.gres=gpu:1", "--set", "slurm.time=10")
NEVER_TWICE = ("--set", "runtime.checkpoint_s=0")
TASKS = ("0", "1")


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A Slurm that takes arrays of two at most; not below pytest's folder, which daemons of others cannot enter."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with cluster(folder, most_tasks=2):
            yield
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: None) -> Path:
    """The folder in which workers note that they hold."""
    (tmp_path / "hold").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HOLD)
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join(map(str, (tmp_path / "site", ROOT, *filter(None, [os.environ.get("PYTHONPATH")])))),
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HOLD_IN", str(tmp_path / "hold"))
    monkeypatch.setattr(submit, "POLL_S", 0.5)
    return tmp_path / "hold"


def states() -> list[str]:
    """States of all tasks in the queue."""
    return client("squeue", "-h", "--array", "-o", "%T").split()


def records() -> dict[int, Record]:
    """The records of the folder by seed."""
    found, problems = record.load_all(Path("runs"))
    assert not problems
    return {made.spec.seed: made for made in found}


def test_a_grid_as_an_array_whose_workers_are_told_to_stop(bench: Any, held: Path, tmp_path: Path) -> None:
    grid = (*RUN, "--seeds", ",".join(map(str, range(12))), *NEVER_TWICE, *SLURM, "--set", "slurm.workers=4")
    first = bench(*grid)
    assert first.code == 0, first.err
    assert "at most 2 tasks (MaxArraySize): 2 workers instead of 4" in first.err
    job = re.findall(r"^job (\d+): an array of 2 workers$", first.out, flags=re.MULTILINE)[0]
    wait_for(lambda: {file.name for file in held.iterdir()} == {*TASKS}, "workers that train")
    again = bench(*grid)
    assert again.code == 0 and f"job {job} is still in the queue" in again.err and "(2 running)" in again.err
    assert states() == ["RUNNING", "RUNNING"]

    client("scancel", "--signal=USR2", f"{job}_0")
    client("scancel", "--signal=USR1", f"{job}_1")
    wait_for(lambda: states() == ["PENDING", "PENDING"], "workers that are queued again")
    stopped = records()
    assert [made.state for made in stopped.values()] == ["preempted", "preempted"]
    for task in TASKS:  # Slurm lets what is queued again wait for two minutes
        client("scontrol", "update", f"JobId={job}_{task}", "StartTime=now")
    wait_for(lambda: not states(), "end of the array", seconds=300)

    made = records()
    assert {seed: one.state for seed, one in made.items()} == dict.fromkeys(range(12), "done")
    resumed = {seed: one.cost.resumed_at for seed, one in made.items() if one.cost and one.cost.resumed_at}
    assert resumed == dict.fromkeys(stopped, (3,)), "the runs that were stopped went on, and no other"
    ended = [line for log in Path("runs/slurm").glob(f"{job}_*.out") for line in log.read_text().splitlines()]
    ended = [line for line in ended if re.match(r" *\d+/12 ", line) and "done before" not in line]
    assert sorted(int(found[1]) for line in ended if (found := re.search(r"seed (\d+)", line))) == [*range(12)]
    assert not [*tmp_path.rglob("hpc_ckpt*")], (
        "Lightning did not answer USR1 with a checkpoint and a requeue of its own"
    )

    shown = bench("show", made[0].run_id)
    log = Path(re.findall(r"^log of its job: (.*)$", shown.out, flags=re.MULTILINE)[0])
    assert re.search(r"seed 0 ", log.read_text()), "it is the log of the worker that made this run"
    after = bench(*grid)
    assert after.code == 0 and "12 done" in after.err and "| full" in after.out
    assert len([*Path("runs/slurm").glob("array-*.json")]) == 1, "no array for no work"
    assert not [*Path("runs/slurm").glob("*.pkl")]


def test_cancel_and_the_same_command_again(bench: Any, held: Path) -> None:
    grid = (*RUN, "--seeds", "0,1", *SLURM)
    assert bench(*grid).code == 0
    wait_for(lambda: {file.name for file in held.iterdir()} == {*TASKS}, "workers that train")
    cancelled = bench("cancel")
    assert cancelled.code == 0 and re.fullmatch(r"cancelled job \d+: 2 running\n", cancelled.out)
    wait_for(lambda: not states(), "end of the array")
    assert [made.state for made in records().values()] == ["preempted", "preempted"], "and not queued again"
    nothing = bench("cancel")
    assert nothing.code == 0 and "nothing to cancel" in nothing.out

    waited = bench(*grid, "--wait")
    assert waited.code == 0 and "2 done" in waited.err and "| full" in waited.out
    assert not states()


@pytest.mark.usefixtures("slurm")
def test_lightning_does_not_see_the_allocation(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load `hpc_ckpt_1.ckpt`, which is no checkpoint at all, and reckon with the two tasks of the job."""
    [planned] = json.loads(bench(*RUN, "--dry-run", "--json").out)["runs"]
    folder = Path("runs", planned["run_id"])
    folder.mkdir(parents=True)
    (folder / "hpc_ckpt_1.ckpt").write_bytes(b"not a checkpoint")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    command = shlex.join([sys.executable, "-P", "-m", "bench", *RUN, "--devices", "1"])
    said = client("sbatch", "--wait", "--nodes=2", "--ntasks=2", "--output=log", f"--wrap={command}")
    [made] = records().values()
    assert made.state == "done" and made.cost and made.cost.devices == 1, f"{said}\n{Path('log').read_text()}"
    assert [file.name for file in Path().rglob("hpc_ckpt*")] == ["hpc_ckpt_1.ckpt"], "and it wrote none"


def test_what_slurm_refuses_is_said_in_its_words(bench: Any, slurm: None) -> None:
    refused = bench(*RUN, *SLURM, "--set", "slurm.partition=nowhere")
    assert refused.code == 3
    assert "invalid partition specified: nowhere" in refused.err


@pytest.mark.usefixtures("slurm")
def test_srun_starts_a_run_on_two_nodes(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the run that one process makes."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # the nodes of this cluster have no addresses of their own
    grid = (*RUN, "--batch-size", "8", "--precision", "64-true")
    assert bench(*grid, "--out", "one").code == 0
    command = [sys.executable, "-P", "-m", "bench", *grid, "--nodes", "2", "--out", "two"]
    said = client("srun", "--nodes=2", "--ntasks-per-node=1", *command)
    assert "| full" in said
    one, two = (
        {made.run_id: [point.loss for point in made.curve] for made in record.load_all(Path(out))[0]}
        for out in ("one", "two")
    )
    assert [len({*losses}) for losses in one.values()] == [6]
    assert two == {run_id: pytest.approx(losses, rel=1e-9) for run_id, losses in one.items()}
    assert [made.cost.devices for made in record.load_all(Path("two"))[0] if made.cost] == [2]
