"""One run in a process of its own, `python -m bench.harness.worker JOB`, for several devices: their launcher repeats
the command that it was started with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.core.errors import BenchError
from bench.core.files import write_atomic
from bench.harness import failures
from bench.records.data import DataRequest
from bench.records.schema import RunError, TrainingResult
from bench.records.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.harness.planner import PlannedRun

JOB, RESULT, ERROR, LOG = "job.json", "result.json", "failure.json", "worker.log"
STEP = "step "
"""Prefix of the lines on standard output that carry a step and its loss."""


def job(run: PlannedRun) -> dict[str, Any]:
    """Return what the process must know, as JSON values."""
    data = run.loaded.request
    dirs = [[name, str(folder)] for name, folder in data.dirs]
    request = {**asdict(data), "dirs": dirs, "parent": str(data.parent) if data.parent else None}
    known = {"spec": run.spec.to_json(), "task": run.loaded.name, "data_hash": run.dataset.hash}
    return {**known, "data": request, "backbone": run.backbone.to_json()}


def run(asked: dict[str, Any], folder: Path, on_step: Callable[[int, float], None]) -> TrainingResult:
    """Train a job in a process of its own and return its result; no process is left, however this ends.

    Raises:
        BenchError: the process ended without a result.
        Reported: the run failed.
    """
    for name in (RESULT, ERROR):
        (folder / name).unlink(missing_ok=True)
    (folder / JOB).write_text(json.dumps(asked))
    with (folder / LOG).open("w") as log:
        # `-m` alone would look into the current folder first, where a folder `tasks` could hide ours
        process = subprocess.Popen(
            command(folder / JOB),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        try:
            # processes of other devices hold the pipe too, and may hang forever if the first one died
            threading.Thread(target=lambda: (process.wait(), end(process)), daemon=True).start()
            for line in process.stdout or ():
                if line.startswith(STEP):
                    step, loss = line.removeprefix(STEP).split()
                    on_step(int(step), float(loss))
        finally:
            end(process)
    (folder / JOB).unlink()
    return take(folder, process.returncode)


def command(path: Path) -> list[str]:
    """Return the argv that starts a worker."""
    return [sys.executable, "-m", "bench.harness.worker", str(path)]


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and every process that it started; they share its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def take(folder: Path, code: int) -> TrainingResult:
    """Read what the process left. A result counts, even if the process of another device failed after it.

    Raises:
        BenchError: it left nothing.
        Reported: it left a failure.
    """
    result, error, log = folder / RESULT, folder / ERROR, folder / LOG
    if error.is_file() and not result.is_file():
        state, three = json.loads(error.read_text())
        error.unlink()
        raise failures.Reported(state, msgspec.convert(three, RunError))
    if not result.is_file():
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        known = f"exit code {code}; the end of {log.name} in the run's folder: {''.join(last) or '(empty)'}"
        raise BenchError("the run's process ended without a result", known, "Fix it, then rerun with --retry.")
    found = msgspec.json.decode(result.read_bytes(), type=TrainingResult)
    result.unlink()
    error.unlink(missing_ok=True)
    return found


def main(path: Path) -> int:
    """Run a job; the first device writes the result, and the first device that fails writes the error."""
    folder = path.parent
    try:
        result = _fit(json.loads(path.read_text()), folder)
    except Exception as problem:
        with suppress(FileExistsError), (folder / ERROR).open("x") as file:  # later failures follow from the first
            state, error = failures.explain(problem, folder)
            json.dump([state, error.to_json()], file)
        return 1
    if _first():
        write_atomic(folder / RESULT, msgspec.json.encode(result))
    return 0


def _fit(asked: dict[str, Any], folder: Path) -> TrainingResult:
    """Open data and backbone as the plan did, and train."""
    from bench.api.backbone import Backbone
    from bench.harness.inputs import expand
    from bench.training.trainer import fit

    data, backbone = asked["data"], Backbone.from_json(asked["backbone"])
    parent = Path(data["parent"]) if data["parent"] else None
    dirs = tuple((name, Path(folder)) for name, folder in data["dirs"])
    [(_, task)] = expand([asked["task"]])
    config = task.Config(**data["config"])
    given: dict[str, Any] = {**data, "dirs": dirs, "parent": parent, "config": config}
    spec = RunSpec.from_json(asked["spec"], backbone=type(backbone.config)).with_options(task=config)
    dataset = task.open(DataRequest(**given))
    if dataset.hash != asked["data_hash"]:
        raise BenchError("the data changed while the plan ran", spec.task, "Run the command again.")
    return fit(spec, task, dataset, backbone, directory=folder, on_step=_print_step)


def end_with_parent(every_s: float = 1.0) -> None:
    """Exit as soon as the process that started this one is gone; a thread watches it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _first() -> bool:
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def _print_step(step: int, loss: float) -> None:
    """Print the step, on the first device alone."""
    if not _first():
        return
    sys.stdout.write(f"{STEP}{step} {loss!r}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(Path(sys.argv[1])))
