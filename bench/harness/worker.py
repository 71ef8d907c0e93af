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
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import msgspec

from bench.config.options import Config
from bench.core.errors import BenchError, MachineProblem
from bench.core.files import write_atomic
from bench.core.text import without_secrets
from bench.harness import failures
from bench.harness.signals import SIGNALS
from bench.records.data import DataRequest
from bench.records.results import TrainingResult
from bench.records.schema import RunError
from bench.records.spec import RunSpec
from bench.training.environment import own_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.harness.nodes import Nodes
    from bench.harness.planner import PlannedRun

JOB, RESULT, ERROR, LOG = "job.json", "result.json", "failure.json", "worker.log"
MACHINE = "machine"
"""In place of a state: the machine failed, and not the run."""
STEP = "step "
"""Prefix of the lines on standard output that carry a step and its loss."""
WARNING = "warning "
"""Prefix of those that carry, as JSON, what is known of the data before training."""


class Job(msgspec.Struct, kw_only=True):
    """What the process must know: the run, and its data and backbone as the plan opened them.

    Attributes:
        spec: `RunSpec.to_json()`.
        task: the task as `--task` names it.
        options: the task's options, with those that only say what the examples are.
        data_hash: `Dataset.hash`.
        data, dirs, parent, on_bad: of the `DataRequest`.
        backbone: `Backbone.to_json()`.
    """

    spec: dict[str, Any]
    task: str
    options: dict[str, Any]
    data_hash: str
    data: Literal["auto", "dir", "hub", "embedded"]
    dirs: tuple[tuple[str | None, str], ...]
    parent: str | None
    on_bad: Literal["error", "skip"]
    backbone: dict[str, Any]


def job(run: PlannedRun) -> Job:
    data = run.loaded.request
    return Job(
        spec=run.spec.to_json(),
        task=run.loaded.name,
        options=data.config_as(Config).to_json(),
        data_hash=run.dataset.hash,
        data=data.data,
        dirs=tuple((name, str(folder)) for name, folder in data.dirs),
        parent=str(data.parent) if data.parent else None,
        on_bad=data.on_bad,
        backbone=run.backbone.to_json(),
    )


def run(
    asked: Job,
    folder: Path,
    on_step: Callable[[int, float], None],
    on_warning: Callable[[str], None],
    nodes: Nodes | None = None,
) -> TrainingResult:
    """Train a job in a process of its own, or in one on every node, and return its result.

    No process is left, however this ends.

    Raises:
        BenchError: the process ended without a result.
        Reported: the run failed.
        MachineProblem: the machine failed it.
    """
    for name in (RESULT, ERROR):
        (folder / name).unlink(missing_ok=True)
    with ExitStack() as stack:
        stop = _Stop()
        variables = stack.enter_context(nodes.training(asked, folder, stop)) if nodes else {}
        process = stop.process = stack.enter_context(started(asked, folder, variables=variables))
        for line in process.stdout or ():
            if line.startswith(STEP):
                step, loss = line.removeprefix(STEP).split()
                on_step(int(step), float(loss))
            elif line.startswith(WARNING):
                on_warning(json.loads(line.removeprefix(WARNING)))
    return take(folder, process.returncode)


@dataclass
class _Stop:
    """Ends the process of this node when that of another has failed: it would wait for it for ever."""

    process: subprocess.Popen[str] | None = None

    def __call__(self) -> bool:
        if self.process:
            end(self.process)
        return self.process is not None


@contextmanager
def started(
    asked: Job, folder: Path, *, node: int = 0, variables: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[str]]:
    """Start a process that trains a job, with those of the node's other devices; all have ended after the context.

    Args:
        asked: the job.
        folder: of the run.
        node: number of this node; files of others than the first have it in their names.
        variables: environment variables of the process.
    """
    suffix = f"-{node}" if node else ""
    job, log_file = (folder / f"{Path(name).stem}{suffix}{Path(name).suffix}" for name in (JOB, LOG))
    write_atomic(job, msgspec.json.encode(asked))
    with log_file.open("w", encoding="utf-8", errors="replace") as log:
        # `-m` alone would look into the current folder first, where a folder `tasks` could hide ours
        process = subprocess.Popen(
            command(job),
            stdout=subprocess.DEVNULL if node else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**own_environment(), "PYTHONSAFEPATH": "1", **(variables or {})},
        )
        copying = threading.Thread(target=_copy, args=(cast(TextIO, process.stderr), log), daemon=True)
        copying.start()
        try:
            # processes of other devices hold the pipe too, and may hang forever if the first one died
            threading.Thread(target=lambda: (process.wait(), end(process)), daemon=True).start()
            yield process
        finally:
            end(process)
            copying.join()
            job.unlink(missing_ok=True)


def _copy(lines: Iterable[str], log: TextIO) -> None:
    """Copy what the process says into its log, without secrets, line by line: it may be killed at any time."""
    for line in lines:
        log.write(without_secrets(line))
        log.flush()


def command(path: Path) -> list[str]:
    """Return the argv that starts a worker of this process."""
    return [sys.executable, "-m", "bench.harness.worker", str(path), str(os.getpid())]


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
        MachineProblem: the machine failed it.
    """
    result, error, log = folder / RESULT, folder / ERROR, folder / LOG
    if error.is_file() and not result.is_file():
        state, three = json.loads(error.read_text())
        error.unlink()
        known = msgspec.convert(three, RunError)
        if state == MACHINE:
            raise MachineProblem(known.what, known.known, known.todo)
        raise failures.Reported(state, known)
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
        result = _fit(msgspec.json.decode(path.read_bytes(), type=Job), folder)
    except Exception as problem:
        with suppress(FileExistsError), (folder / ERROR).open("x") as file:  # later failures follow from the first
            try:
                state, error = failures.explain(problem, folder)
            except MachineProblem as machine:
                state, error = MACHINE, RunError.of(machine)
            json.dump([state, error.to_json()], file)
        return 1
    if _first():
        write_atomic(folder / RESULT, msgspec.json.encode(result))
    return 0


def _fit(asked: Job, folder: Path) -> TrainingResult:
    """Open data and backbone as the plan did, and train."""
    from bench.api.backbone import Backbone
    from bench.harness.inputs import expand
    from bench.training.trainer import fit

    backbone = Backbone.from_json(asked.backbone)
    [(_, task)] = expand([asked.task])
    config: Config = task.Config(**asked.options)
    spec = RunSpec.from_json(asked.spec, backbone=type(backbone.config)).with_options(task=config)
    dataset = task.open(
        DataRequest(
            data=asked.data,
            dirs=tuple((name, Path(folder)) for name, folder in asked.dirs),
            parent=Path(asked.parent) if asked.parent else None,
            config=config,
            on_bad=asked.on_bad,
        )
    )
    if dataset.hash != asked.data_hash:
        raise BenchError("the data changed while the plan ran", spec.task, "Run the command again.")
    return fit(spec, task, dataset, backbone, directory=folder, on_step=_print_step, on_warning=_print_warning)


def end_with_parent(parent: int, every_s: float = 1.0) -> None:
    """Exit as soon as the process that started this one, `parent`, is gone; a thread watches it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave_signals() -> None:
    """Block the signals that stop a command, in all threads of this process that begin after this.

    Slurm sends them to all processes of a job. The command writes the record and then kills this process; one that a
    signal ended before that would be a failure of its run. They are blocked and not ignored, because Lightning sets a
    handler of SIGTERM that waits for the other devices, which is for ever if they train.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *SIGNALS))


def _first(*, of_node: bool = False) -> bool:
    """Whether this is the process of the first device, of all nodes or of this one."""
    variables = ("LOCAL_RANK",) if of_node else ("LOCAL_RANK", "NODE_RANK")
    return all(int(os.environ.get(name, "0")) == 0 for name in variables)


def _print_step(step: int, loss: float) -> None:
    _print(f"{STEP}{step} {loss!r}")


def _print_warning(text: str) -> None:
    _print(f"{WARNING}{json.dumps(text)}")


def _print(line: str) -> None:
    """Print a line, on the first device alone."""
    if _first():
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    leave_signals()
    # the first device of a node starts those of the others
    end_with_parent(int(sys.argv[2]) if _first(of_node=True) else os.getppid())
    sys.exit(main(Path(sys.argv[1])))
