"""A pool on this machine: worker processes that share the runs of a plan by claims, and what becomes of one that dies.

A worker makes the same plan in a process of its own and works on it as `bench work` does on another machine; the pool
starts it, shows what it says, and records the run in which it died. So no run needs to be handed out, and a worker
stays warm: data, tokens and weights are read once.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal, cast

from msgspec import structs

from bench.core.errors import ENVIRONMENT, BenchError, EnvironmentProblem
from bench.core.files import write_atomic
from bench.core.text import without_secrets
from bench.harness import failures, plan_file
from bench.harness.attempt import FINISHED, Attempts, existing
from bench.harness.planner import Plan
from bench.harness.signals import Preempted
from bench.harness.worker import end
from bench.records import record
from bench.records.schema import Record, RunError
from bench.training.environment import own_environment

Jobs = int | Literal["auto"]
MOST_DEATHS = 3
"""Workers that may die one after another without having begun a run: then something is wrong with all of them."""
GRACE_S = 30.0
"""Time that workers have to write what they must when the command is stopped."""
READ_S = 5.0
"""Time to read what a worker wrote before its end. Its pipe closes then, unless something it started holds it."""
MEMORY_A_WORKER = 2 * 2**30
"""What `--jobs auto` reckons with: torch, MiniLM and its data take about half of it."""
TAIL = 40
"""Lines of a dead worker's standard error that go into the run's log."""


def count_workers(jobs: Jobs, *, accelerator: str, devices: int, runs: int) -> int:
    """Return the number of workers: as asked, or for `auto` one for each GPU, else one for each core.

    Two runs of MiniLM's size on one core each take less time than one after the other on both. Where memory is scarce,
    there are fewer.
    """
    if jobs != "auto":
        return min(jobs, runs)
    if gpus := _gpus(accelerator):
        return max(1, min(runs, len(gpus) // devices))
    return max(1, min(runs, _cores() // devices, _free_memory() // MEMORY_A_WORKER))


def run_pool(plan: Plan, jobs: int, attempts: Attempts) -> Generator[Record]:
    """Run a plan in `jobs` worker processes, and yield each run's record as soon as it has ended.

    A worker that dies costs the run that it trained, which is recorded as failed, and another takes its place. No
    worker is left, however this ends.

    Raises:
        BenchError: the workers cannot start, or one of them met what stops a command.
        KeyboardInterrupt, Preempted: the command is to stop; the workers have recorded that.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "plan.yaml"
        file.write_text(plan_file.write(replace(plan.request, retry=False)), encoding="utf-8")
        pool = _Pool(plan, jobs, attempts, file)
        try:
            yield from pool.work()
        except KeyboardInterrupt:
            pool.stop(signal.SIGINT)
            raise
        except Preempted:
            pool.stop(signal.SIGTERM)
            raise
        finally:
            pool.stop()


@dataclass(eq=False, kw_only=True)
class _Worker:
    """A worker process; `folder` is that of the run which it trains now, `reader` reads the `tail` of its stderr."""

    lane: int
    process: subprocess.Popen[str]
    reader: threading.Thread = field(init=False)
    folder: Path | None = None
    begun: bool = False
    tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=TAIL))


class _Pool:
    def __init__(self, plan: Plan, jobs: int, attempts: Attempts, file: Path) -> None:
        self.jobs, self.attempts, self.file = jobs, attempts, file
        self.out, self.progress = plan.request.out, attempts.progress
        self.devices, self.gpus = plan.request.devices, _gpus(plan.request.accelerator)
        self.name = uuid.uuid4().hex
        self.runs = {run.run_id for run in plan.runs}
        self.workers: dict[int, _Worker] = {}
        self.said: queue.Queue[tuple[_Worker, list[Any] | None]] = queue.Queue()
        self.ended: set[str] = set()
        self.extended: set[str] = set()
        self.begun: set[str] = set()
        self.deaths = 0
        self.killed_for_memory = _killed_for_memory()

    def work(self) -> Generator[Record]:
        for lane in range(self.jobs):
            self._start(lane)
        while self.workers:
            self.attempts.check()
            try:
                worker, message = self.said.get(timeout=0.2)
            except queue.Empty:
                continue
            yield from self._after(worker) if message is None else self._take(worker, *message)

    def stop(self, number: int | None = None) -> None:
        """End all workers: with a signal, which they have some time to follow, and else at once."""
        workers = list(self.workers.values())
        if number is not None:
            for worker in workers:
                if worker.process.poll() is None:
                    worker.process.send_signal(number)
            deadline = time.monotonic() + GRACE_S
            while any(worker.process.poll() is None for worker in workers) and time.monotonic() < deadline:
                time.sleep(0.05)
        for worker in workers:
            end(worker.process)
        self.workers.clear()

    def _start(self, lane: int) -> None:
        argv = [sys.executable, "-m", "bench.harness.pool_worker", str(self.file), self.name, str(os.getpid())]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is the pool's, which passes it on
            env=self._environment(lane),
        )
        worker = self.workers[lane] = _Worker(lane=lane, process=process)
        worker.reader = threading.Thread(target=self._keep_tail, args=(worker,), daemon=True)
        worker.reader.start()
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    def _environment(self, lane: int) -> dict[str, str]:
        """Variables of a worker: its share of the threads, or its GPUs."""
        environment = {**own_environment(), "PYTHONSAFEPATH": "1"}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // self.jobs)))
        if self.gpus:
            first = lane * self.devices % len(self.gpus)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus[first : first + self.devices])
        return environment

    def _listen(self, worker: _Worker) -> None:
        # what it has started holds the pipe too, and may hang for ever after its end
        threading.Thread(target=lambda: (worker.process.wait(), end(worker.process)), daemon=True).start()
        for line in cast(IO[str], worker.process.stdout):
            try:
                self.said.put((worker, json.loads(line)))
            except ValueError:  # it died in the middle of a line
                worker.tail.append(line)
        worker.process.wait()
        self.said.put((worker, None))

    def _keep_tail(self, worker: _Worker) -> None:
        for line in cast(IO[str], worker.process.stderr):
            worker.tail.append(without_secrets(line))
            if self.attempts.verbose:
                sys.stderr.write(without_secrets(line))

    def _take(self, worker: _Worker, kind: str, *values: Any) -> Generator[Record]:
        """Show one message of a worker; yield the record of a run that has ended."""
        if kind == "begin":
            label, steps, folder = values
            worker.folder, worker.begun = Path(folder), True
            self.begun.add(worker.folder.name)
            self.progress.begin(label, steps, worker.folder, worker.lane)
        elif kind == "step":
            step, loss = values
            self.progress.step(step, loss, worker.lane)
        elif kind == "finished":
            self.deaths, worker.folder = 0, None
            yield from self._finished(*values)
        elif kind == "extend":
            if values[0] not in self.extended:
                self.extended.add(values[0])
                self.progress.extend(values[0])
        elif kind == "say":
            self.progress.say(*values)
        elif kind == "warn":
            self.progress.warn(*values)
        else:  # an error that stops the command
            code, *three = values
            raise (EnvironmentProblem if code == ENVIRONMENT else BenchError)(*three)

    def _finished(self, run_id: str, trial: bool, before: str) -> Generator[Record]:
        """Say once that a run has ended: every worker notices it."""
        if run_id in self.ended:
            return
        made = existing(record.folder(self.out / record.TRIALS if trial else self.out, run_id))
        if made is None:
            return
        self.ended.add(run_id)
        self.progress.finished(made, before="" if run_id in self.begun else before)
        if run_id in self.runs:
            yield made

    def _after(self, worker: _Worker) -> Generator[Record]:
        """Go on after a worker's end: it had nothing more to do, or another takes its place."""
        del self.workers[worker.lane]
        worker.reader.join(READ_S)  # its last words may still be in the pipe
        self.progress.end(worker.lane)
        code = worker.process.returncode
        if code == 0:
            return
        if not worker.begun:
            self.deaths += 1
            if self.deaths >= MOST_DEATHS:
                known = (
                    f"exit code {code}; the last that it said: {''.join([*worker.tail][-1:]).strip() or '(nothing)'}"
                )
                raise BenchError(
                    "worker processes end before they begin a run", known, "Run it with --jobs 1 to see why."
                )
        if worker.folder:
            yield from self._record_death(worker.folder, code, worker)
        self._start(worker.lane)

    def _record_death(self, folder: Path, code: int, worker: _Worker) -> Generator[Record]:
        """Record that a run's process died; a run that was only stopped has recorded that itself, and is made again."""
        held = self.attempts.claims.take(folder)
        if held is None:
            return
        with held:
            found = existing(folder)
            if found and found.state == "running":
                memory, self.killed_for_memory = self.killed_for_memory, _killed_for_memory()
                how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
                known = f"{how}; its last lines are in {record.ERROR_LOG} of the run's folder"
                write_atomic(folder / record.ERROR_LOG, "".join(worker.tail).encode(errors="replace"))
                if code == -signal.SIGKILL and self.killed_for_memory > memory:
                    what, state, todo = "killed by the system for want of memory", "oom", failures.LESS_MEMORY
                else:
                    what, state, todo = "the run's process died", "failed", "Rerun with --retry: it goes on."
                found = structs.replace(found, state=state, error=RunError(what=what, known=known, todo=todo))
                record.write(found, folder)
        if found and found.state in FINISHED:
            yield from self._finished(found.run_id, bool(found.spec.holdout), "")


def _cores() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or one without a limit
        return cores


def _gpus(accelerator: str) -> list[str]:
    """The CUDA devices that this process may use, as `CUDA_VISIBLE_DEVICES` names them; none for a run on the CPU."""
    if accelerator in ("cpu", "mps"):
        return []
    import torch

    count = torch.cuda.device_count()
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[:count] if visible else [str(index) for index in range(count)]


def _free_memory() -> int:
    """Bytes that new processes can have; where the system does not say, as much as they like."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return sys.maxsize


def _killed_for_memory() -> int:
    """How many processes of this machine the kernel has killed for want of memory; 0 where it does not say."""
    try:
        return int(dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())["oom_kill"])
    except (OSError, ValueError, KeyError):
        return 0
