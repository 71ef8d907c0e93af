"""The script of a worker's job, run by a shell: when it is queued again, and where it says that its log is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from false_slurm import FalseSlurm

from bench.records import job_log

pytest.importorskip("submitit", reason="the extra `slurm` is not installed")

RUN = ("run", "--method", "full", "--task", "digits", "--backbone", "mlp", "--max-steps", "2", "--launcher", "slurm")
VARIABLES = {"SLURM_JOB_ID": "43", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "2"}
SIGNALLED = """\
#!/bin/bash
echo "$BENCH_JOB_LOG" > {folder}/log
kill -s {name} $PPID
exit {code}
"""


def ended(bench: Any, slurm: FalseSlurm, *, name: str = "0", code: int = 75) -> int:
    """Exit code of a job whose worker ends with `code`; before that the script's shell gets a signal."""
    assert bench(*RUN).code == 0
    slurm.remove("srun")
    (slurm.folder / "bin" / "srun").write_text(SIGNALLED.format(folder=slurm.folder, name=name, code=code))
    (slurm.folder / "bin" / "srun").chmod(0o755)
    (slurm.folder / "job.sh").write_text(slurm.script)
    done = subprocess.run(["/bin/bash", str(slurm.folder / "job.sh")], env={**os.environ, **VARIABLES}, check=False)
    return done.returncode


@pytest.mark.parametrize("name", ["0", "USR1", "USR2", "HUP"])
def test_a_worker_that_was_told_to_stop_is_queued_again(bench: Any, slurm: FalseSlurm, name: str) -> None:
    assert ended(bench, slurm, name=name) == 75
    assert slurm.calls("scontrol")[1:] == ["requeue 43"]


@pytest.mark.parametrize("code", [0, 1, 3, 130])
def test_any_other_end_is_the_end(bench: Any, slurm: FalseSlurm, code: int) -> None:
    assert ended(bench, slurm, code=code) == code
    assert len(slurm.calls("scontrol")) == 1


def test_what_is_cancelled_does_not_come_back(bench: Any, slurm: FalseSlurm) -> None:
    """scancel sends TERM to worker and script. Slurm queues again by itself what it has pre-empted."""
    assert ended(bench, slurm, name="TERM") == 75
    assert len(slurm.calls("scontrol")) == 1


def test_the_worker_knows_its_log(bench: Any, slurm: FalseSlurm, tmp_path: Path) -> None:
    ended(bench, slurm)
    log = (slurm.folder / "log").read_text().strip()
    assert log == str(Path("runs/slurm").absolute() / "41_2_0_log.out")


def test_the_log_is_noted_beside_the_record(bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = f"{tmp_path}/41_2\x1b[2J_0_log.out"
    monkeypatch.setenv(job_log.VARIABLE, log)
    assert bench(*RUN[:-2], "--accelerator", "cpu").code == 0
    [folder] = [file.parent for file in Path("runs").glob("*/record.json")]
    assert job_log.read(folder) == log
    shown = bench("show", folder.name).out
    assert "log of its job: " in shown and "\x1b" not in shown
    monkeypatch.delenv(job_log.VARIABLE)
    job_log.note(folder)
    assert job_log.read(folder) == "" and "log of its job" not in bench("show", folder.name).out


def test_signals_have_their_default_in_the_worker(bench: Any, slurm: FalseSlurm) -> None:
    """A shell that ignored them would have the worker ignore them too."""
    assert bench(*RUN).code == 0
    (slurm.folder / "bin" / "srun").write_text('#!/bin/bash\ngrep SigIgn /proc/$$/status > "$IGNORED"\n')
    (slurm.folder / "job.sh").write_text(slurm.script)
    environ = {
        **os.environ,
        **VARIABLES,
        "IGNORED": str(slurm.folder / "ignored"),
        "PATH": f"{os.environ['PATH']}:/bin",
    }
    subprocess.run(["/bin/bash", str(slurm.folder / "job.sh")], env=environ, check=True)
    ignored = int((slurm.folder / "ignored").read_text().split()[1], 16)
    told = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    assert not [number for number in told if ignored >> (number - 1) & 1]
