"""One attempt at one run: from the claim on its folder to its record, however it ends."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path

from msgspec import structs

from bench.config.sections import RuntimeConfig
from bench.core import registry
from bench.core.files import sweep
from bench.harness import failures, selection
from bench.harness.devices import check_devices
from bench.harness.initial_record import initial_record, with_selection
from bench.harness.nodes import Nodes
from bench.harness.planner import PlannedRun
from bench.harness.progress import Progress
from bench.harness.request import Request
from bench.harness.signals import Preempted
from bench.records import job_log, record
from bench.records.claims import Claims, Held
from bench.records.results import TrainingResult
from bench.records.schema import Record
from bench.training import checkpoint
from bench.training.kept import kept

FINISHED = ("done", "failed", "oom", "diverged")
"""States that a rerun leaves alone (`--retry` takes the last three again)."""
NEED_NO_CHECKPOINT = ("done", "diverged")
"""Any other failure may pass: --retry goes on from the checkpoint."""
BROKEN = "broken"
"""Folder in `out` for what lay beside a record that cannot be read."""


class Lost(BaseException):
    """Another process has taken over the run that this one was training."""


@dataclass(kw_only=True)
class Attempts:
    """Makes the runs of one command.

    Attributes:
        claims: those of this process.
        check: raises `Preempted` if a scheduler's signal has arrived.
        verbose: print the traceback of an unexpected error.
        nodes: the other nodes, where a run has several.
    """

    request: Request
    progress: Progress
    check: Callable[[], None] = lambda: None
    verbose: bool = False
    claims: Claims = field(default_factory=Claims)
    nodes: Nodes | None = None

    def folder(self, run: PlannedRun) -> Path:
        """The run's own folder; trials have theirs in one that tables do not read."""
        out = self.request.out
        return record.folder(out / record.TRIALS if run.spec.holdout else out, run.run_id)

    def attempt(self, run: PlannedRun, tried: selection.Tried) -> Record | None:
        """Return the record of a run: the finished one in its folder, or that of training it now.

        None while another process trains it, or if one has taken it over.

        Raises:
            EnvironmentProblem: the record there is of another version, a device is missing, or the machine fails
                (`MachineProblem`).
            KeyboardInterrupt, Preempted: the command is to stop.
        """
        folder = self.folder(run)
        earlier = existing(folder)
        if earlier and earlier.state in FINISHED and not _to_mirror(run, earlier):
            return self._finished_before(earlier, folder)
        check_devices(run.spec.accelerator, run.spec.devices)
        held = self.claims.take(folder)
        if held is None:
            return None
        with held:
            earlier = self._whole(folder)
            if earlier and earlier.state in FINISHED:  # meanwhile, by another process
                return _mirror(run, self._finished_before(earlier, folder), folder)
            sweep(folder)
            job_log.note(folder)
            self.progress.begin(f"{run.spec.method} {run.spec.task}", _steps(run), folder)
            try:
                finished = self._train(run, held, tried)
            except Lost:
                self.progress.say(f"{run.run_id}: another process has taken this run over")
                return None
        self.progress.finished(finished)
        return finished

    def _finished_before(self, earlier: Record, folder: Path) -> Record:
        sweep(folder)
        if earlier.state in NEED_NO_CHECKPOINT:
            checkpoint.drop(folder)  # of a process that was killed before it could
        self.progress.finished(earlier, before=_done_before(earlier, folder))
        return earlier

    def _whole(self, folder: Path) -> Record | None:
        """The record in a claimed folder; what lies beside a broken one moves to `out`/broken, which a line says."""
        try:
            return record.read(folder / record.FILE) if (folder / record.FILE).exists() else None
        except record.BrokenRecord as problem:
            places = (self.request.out / BROKEN / f"{folder.name}-{number}" for number in count(1))
            aside = next(place for place in places if not place.exists())
            aside.mkdir(parents=True)
            for file in [*folder.iterdir()]:
                if file.name not in Held.FILES:
                    file.rename(aside / file.name)
            reason = problem.known.splitlines()[0]
            self.progress.say(f"{problem.what} ({reason}); its folder is now {aside}, and the run is trained again")
            return None

    def _train(self, run: PlannedRun, held: Held, tried: selection.Tried) -> Record:
        """Train a claimed run and write its record, whatever happens to it.

        Raises:
            MachineProblem: the disk or the clock failed; the record stays that of a running one, as after a kill.
            KeyboardInterrupt, Preempted: the command is to stop.
            Lost: the claim is another process's now; nothing is written.
        """
        folder, request = held.folder, self.request
        current, log = initial_record(run, request), folder / record.ERROR_LOG
        if (there := _write(current, folder)).state == "done":
            return there
        log.unlink(missing_ok=True)  # of an earlier attempt
        stop: BaseException | None = None
        try:
            run, chosen = selection.choose(run, tried, request.out)
            if chosen:
                current = with_selection(current, run, chosen)
            whole = _completed(current, run, self._fit_in_memory(run, held))
            record.validate(whole.to_json(), folder / record.FILE)  # what cannot be written is this run's failure
            current = whole
        except (Exception, KeyboardInterrupt, SystemExit, Preempted) as end:
            stop = stopped(end)
            if stop:
                current = structs.replace(current, state="preempted" if isinstance(stop, Preempted) else "cancelled")
            else:
                state, error = failures.explain(end, folder)
                current = structs.replace(current, state=state, error=error)
                if self.verbose and log.is_file():
                    sys.stderr.write(log.read_text())
        if not held.check():
            raise stop or Lost
        current = _write(current, folder)
        if stop is not None:
            raise stop
        if current.state in NEED_NO_CHECKPOINT:
            checkpoint.drop(folder)
        return _mirror(run, current, folder)

    def _fit_in_memory(self, run: PlannedRun, held: Held) -> TrainingResult:
        """Train; with `runtime.on_oom=halve` again with ever smaller parts of a batch, until the memory suffices."""
        tried: list[str] = []
        while True:
            try:
                result = self._fit(run, held)
                return structs.replace(result, warnings=(*tried, *result.warnings)) if tried else result
            except Exception as problem:
                half = _half(run) if run.spec.options.runtime.on_oom == "halve" else None
                if half is None or not failures.out_of_memory(problem):
                    raise
                run, micro = half
            tried[:] = [f"the memory was too small: each step is made of parts of {micro} examples"]
            gc.collect()
            if torch := sys.modules.get("torch"):
                torch.cuda.empty_cache()

    def _fit(self, run: PlannedRun, held: Held) -> TrainingResult:
        """Train in this process on one device; on several in one of its own, since Lightning repeats the command."""
        warn, steps, began = partial(self.progress.warn, run.spec.task), _steps(run), time.monotonic()
        first: list[int] = []

        def on_step(step: int, loss: float) -> None:
            if held.lost:
                raise Lost
            self.check()
            first.append(step) if not first else None
            here = (step - first[0] + 1) / step  # of the steps so far, the share that this attempt made
            held.report(step=step, steps=steps, loss=loss, train_s=(time.monotonic() - began) / here)
            self.progress.step(step, loss)

        if run.spec.processes > 1:
            from bench.harness import worker

            return worker.run(worker.job(run), held.folder, on_step, warn, self.nodes)
        from bench.training.trainer import fit

        gc.collect()  # trainers and modules refer to each other: without it hundreds of runs fill the memory
        spec, task, dataset, backbone = run.spec, run.task, run.dataset, run.backbone
        return fit(spec, task, dataset, backbone, directory=held.folder, on_step=on_step, on_warning=warn)


def _half(run: PlannedRun) -> tuple[PlannedRun, int] | None:
    """The same run with parts of a batch half as large, and their size; None where they are single examples."""
    runtime, share = run.spec.options.runtime, run.spec.batch_size // run.spec.processes
    micro = runtime.micro_batch or share
    if micro == 1 and runtime.eval_batch == 1:
        return None
    smaller = next(size for size in range(max(1, micro // 2), 0, -1) if share % size == 0)
    less = runtime.changed(micro_batch=smaller, eval_batch=max(1, runtime.eval_batch // 2))
    return replace(run, spec=run.spec.with_options(runtime=less)), smaller


def existing(folder: Path) -> Record | None:
    """Return the record in a folder; None if there is none, or if it is broken.

    Raises:
        EnvironmentProblem: it cannot be opened, or is of another version of the schema.
    """
    try:
        return record.read(folder / record.FILE) if (folder / record.FILE).exists() else None
    except record.BrokenRecord:
        return None


def stopped(end: BaseException) -> BaseException | None:
    """Return Ctrl-C or SIGTERM, which must stop the command and which Lightning may turn into SystemExit; else None."""
    if isinstance(end, SystemExit):
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        return Preempted() if isinstance(end, SIGTERMException) else end.__context__ and stopped(end.__context__)
    return end if isinstance(end, KeyboardInterrupt | Preempted) else None


def _steps(run: PlannedRun) -> int:
    return run.spec.steps(min(run.spec.train_samples or sys.maxsize, len(run.dataset.train)) - run.spec.holdout)


def _done_before(earlier: Record, folder: Path) -> str:
    """Say that a run was done before, and which of the weights that it kept is gone since."""
    if earlier.state == "done" and not (folder / record.ADAPTER).is_file():
        method = registry.load("methods", earlier.spec.method)  # imports torch
        for name in kept(method, earlier.spec.options.runtime.get("save", RuntimeConfig().save)):
            if not (folder / name).exists():
                return f"done before, but {name} is gone: remove {folder} to train it again"
    return "done before"


def _write(current: Record, folder: Path) -> Record:
    """Write a record unless another command has finished the same run meanwhile; return the one that is there now."""
    there = existing(folder)
    if there and there.state == "done":
        return there
    record.write(current, folder)
    return current


def _completed(initial: Record, run: PlannedRun, result: TrainingResult) -> Record:
    size = initial.backbone.parameters
    return structs.replace(
        initial,
        state="done",
        lr=run.spec.lr,
        backbone=structs.replace(initial.backbone, parameters=result.backbone_parameters if size is None else size),
        metrics=result.metrics,
        params=result.params,
        ranks=result.ranks,
        cost=result.cost,
        curve=result.curve,
        warnings=(*(initial.selection.warnings if initial.selection else ()), *result.warnings),
        report=result.report,
        spectra=result.spectra,
        evaluations=result.evaluations,
        sweep=result.sweep,
        truncation=result.truncation,
        files=result.files,
    )


def _to_mirror(run: PlannedRun, current: Record) -> bool:
    """Whether a mirror of a finished run is asked for and not there yet."""
    there, kind = current.tracking, run.spec.track
    return kind != "off" and record.is_done(current) and not (there and there.kind == kind and not there.error)


def _mirror(run: PlannedRun, current: Record, folder: Path) -> Record:
    """Mirror a finished run if that is asked for and not done yet."""
    if run.spec.track == "off" or not record.is_done(current) or not _to_mirror(run, current):
        return current
    from bench.tracking import mirror

    tracked = structs.replace(current, tracking=mirror(current, folder, run.spec.track))
    record.write(tracked, folder)
    return tracked
