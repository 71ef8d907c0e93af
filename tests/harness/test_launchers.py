"""Variables of Slurm, torchrun, MPI and Lightning change nothing: bench starts its processes itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records import record
from bench.training.environment import own_environment, without_launcher
from bench.training.trainer import trained

LAUNCHERS = {
    "slurm": {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "3",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "node[1-2]",
        "SLURM_JOB_NAME": "grid",
    },
    "torchrun": {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "nowhere.invalid",
        "MASTER_PORT": "1",
        "TORCHELASTIC_RUN_ID": "x",
    },
    "mpi, lsf, tpu, lightning": {
        **{"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "PMIX_RANK": "1"},
        **{"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "x", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_RANK": "1"},
        **{"TPU_WORKER_ID": "1", "XRT_TPU_CONFIG": "x", "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1"},
    },
}
RUN = [sys.executable, "-P", "-m", "bench", *["run", "--method", "full", "--task", "digits", "--backbone", "mlp"]]


def train(folder: Path, variables: dict[str, str], *more: str) -> record.Record:
    environ = {**own_environment(), **variables}
    command = [*RUN, "--max-steps", "6", *more]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["runs"], "nothing but the records is written"
    [made], problems = record.load_all(folder / "runs")
    assert not problems
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> record.Record:
    return train(tmp_path_factory.mktemp("plain"), {})


@pytest.mark.parametrize("variables", LAUNCHERS.values(), ids=LAUNCHERS)
def test_the_run_is_the_same_inside_a_launcher(plain: record.Record, tmp_path: Path, variables: dict[str, str]) -> None:
    made = train(tmp_path, variables)
    assert (made.run_id, made.metrics, made.curve) == (plain.run_id, plain.metrics, plain.curve)
    assert made.cost is not None and made.cost.devices == 1


def test_two_devices_inside_a_launcher(plain: record.Record, tmp_path: Path) -> None:
    """Under Slurm with one task Lightning trained one process, with wrong micro batches, under the same id."""
    variables = {**LAUNCHERS["slurm"], **LAUNCHERS["torchrun"], "SLURM_NTASKS": "1"}
    made = train(tmp_path, variables, "--devices", "2", "--accelerator", "cpu")
    assert made.cost is not None and made.cost.devices == 2
    assert made.run_id == plain.run_id
    losses, expected = ([point.loss for point in one.curve] for one in (made, plain))
    assert losses == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_of_slurm_is_not_loaded(plain: record.Record, tmp_path: Path) -> None:
    """Lightning loads `hpc_ckpt_1.ckpt` of the working directory into every run; this one is no checkpoint at all."""
    runs = tmp_path / "runs"
    (runs / plain.run_id).mkdir(parents=True)
    (runs / "hpc_ckpt_1.ckpt").write_bytes(b"not a checkpoint")
    command = [*RUN, "--max-steps", "6", "--out", "."]
    environ = {**own_environment(), **LAUNCHERS["slurm"], "SLURM_NTASKS": "1"}
    done = subprocess.run(command, cwd=runs, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert record.read(runs / plain.run_id / "record.json").metrics == plain.metrics


@pytest.mark.usefixtures("slurm")
def test_an_experiment_that_trains_without_a_record_does_not_load_it_either(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"not a checkpoint")
    spec = lab.spec("linear", max_steps=1, accelerator="cpu")
    task = lab.tasks[spec.task]
    method, _ = trained(spec, task, task.dataset, lab.backbone, callbacks=[])
    assert method.trainer.global_step == 1


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    for name, value in LAUNCHERS["slurm"].items():
        monkeypatch.setenv(name, value)
    yield LAUNCHERS["slurm"]


def test_the_variables_come_back(slurm: dict[str, str]) -> None:
    with without_launcher():
        assert not slurm.keys() & os.environ.keys()
        os.environ["SLURM_NTASKS"] = "8"  # set meanwhile by somebody else
    assert {name: os.environ[name] for name in slurm} == {**slurm, "SLURM_NTASKS": "8"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_of_the_scheduler_preempts_the_run(tmp_path: Path, number: int) -> None:
    """Slurm sends USR1 a while before the end of an allocation, if asked to (`--signal=USR1@90`)."""
    command = [*RUN, "--max-steps", "100000", "--set", "runtime.checkpoint_s=0"]
    environ = {**own_environment(), **LAUNCHERS["slurm"], "SLURM_NTASKS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not [*tmp_path.glob("runs/*/checkpoint-*.ckpt")]:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == 75
    finally:
        process.kill()
    [made], _ = record.load_all(tmp_path / "runs")
    assert made.state == "preempted"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
