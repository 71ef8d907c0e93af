"""`bench cancel`: arrays of this folder leave the queue, processes of this machine are told to stop, and no others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from false_slurm import FalseSlurm

from bench.launchers import arrays
from bench.launchers.arrays import Array

HOLD = """
import sys, time
from pathlib import Path
from bench.records.claims import Claims
with Claims(pool=sys.argv[2]).take(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(120)
"""
POOL = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def training(bench: Any) -> Iterator[Start]:
    """`training("runs/a")` starts a process that has the claim on that run; with `pool` its parent is returned."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: str, *, pool: str = "", **variables: str) -> subprocess.Popen[str]:
        code = ["-c", HOLD, folder, pool]
        argv = [sys.executable, *(["-c", POOL, *code] if pool else code)]
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}, start_new_session=True
        )
        started.append(process)
        assert process.stdout and process.stdout.readline() == "claimed\n"
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def submitted(job: str = "41", name: str = "bench-1") -> None:
    arrays.note(Array(job=job, name=name, workers=2, logs=""), Path("runs"))


def test_nothing_to_cancel(bench: Any, slurm: FalseSlurm) -> None:
    outcome = bench("cancel")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "nothing to cancel in runs: no array in the queue, and no process of this machine trains a run\n"
    )
    assert not slurm.calls("squeue"), "a folder without arrays needs no Slurm"


def test_arrays_in_the_queue(bench: Any, slurm: FalseSlurm) -> None:
    submitted()
    submitted("42", "bench-2")
    slurm.answer("squeue", "41|RUNNING|bench-1\n41|PENDING|bench-1\n41|PENDING|bench-1")
    outcome = bench("cancel")
    assert (outcome.code, outcome.out) == (0, "cancelled job 41: 2 pending, 1 running\n")
    assert slurm.calls("scancel") == ["41"], "42 has another name than the job that squeue knows"
    assert json.loads(bench("cancel", "--json").out)["arrays"] == {"41": {"pending": 2, "running": 1}}


def test_processes_of_this_machine(bench: Any, training: Start) -> None:
    run, trial = training("runs/a"), training("runs/selection/b")
    outcome = bench("cancel")
    assert outcome.code == 0
    expected = [f"sent SIGTERM to process {one.pid}, which trains {name}" for one, name in ((run, "a"), (trial, "b"))]
    assert outcome.out.splitlines() == expected
    assert (run.wait(60), trial.wait(60)) == (-signal.SIGTERM, -signal.SIGTERM)


def test_of_a_pool_its_launcher(bench: Any, training: Start) -> None:
    """It would start another worker in place of one that ends."""
    pool = training("runs/a", pool="p")
    assert f"sent SIGTERM to process {pool.pid}," in bench("cancel").out
    assert pool.wait(60) == -signal.SIGTERM


def test_a_worker_of_slurm_on_this_machine_is_told_once(bench: Any, slurm: FalseSlurm, training: Start) -> None:
    worker = training("runs/a", SLURM_ARRAY_JOB_ID="41")
    other = training("runs/b", SLURM_ARRAY_JOB_ID="7")
    submitted()
    slurm.answer("squeue", "41|RUNNING|bench-1")
    lines = bench("cancel").out.splitlines()
    assert lines == ["cancelled job 41: 1 running", f"sent SIGTERM to process {other.pid}, which trains b"]
    assert other.wait(60) == -signal.SIGTERM and worker.poll() is None


def test_claims_that_name_others(bench: Any, training: Start) -> None:
    """A process id of another machine, or one that a new process has now, is no reason to end that process."""
    victim = training("elsewhere/a")
    claim = json.loads(Path("elsewhere/a/claim.json").read_text())
    for name, change in (("old", {"born": "1"}), ("far", {"machine": "another"}), ("unknown", {"machine": ""})):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "claim.json").write_text(json.dumps({**claim, **change}))
    outcome = bench("cancel")
    assert outcome.out.startswith("nothing to cancel") and "left alone: 2 claimed from other machines" in outcome.out
    assert victim.poll() is None


def test_processes_are_told_even_where_slurm_does_not_answer(bench: Any, slurm: FalseSlurm, training: Start) -> None:
    run = training("runs/a")
    submitted()
    slurm.answer("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    outcome = bench("cancel")
    assert outcome.code == 3 and "Unable to contact slurm controller" in outcome.err
    assert "sent SIGTERM" in outcome.out and run.wait(60) == -signal.SIGTERM
    slurm.remove("squeue")
    without = bench("cancel")
    assert without.out == "" and "there is no squeue on this machine" in without.err
