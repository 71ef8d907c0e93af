"""Runs a plan: skips what is done, records how every run ends, and never lets one run stop the others."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Generator, Iterable
from functools import partial
from itertools import count
from pathlib import Path

from msgspec import structs

from bench.config.sections import RuntimeConfig
from bench.core import registry
from bench.core.errors import EnvironmentProblem
from bench.core.files import sweep
from bench.harness import failures, selection
from bench.harness.devices import check_devices
from bench.harness.initial_record import initial_record
from bench.harness.plan_text import notes
from bench.harness.planner import Plan, PlannedRun
from bench.harness.progress import Progress, make_progress
from bench.harness.request import Request
from bench.harness.signals import Preempted, preemptible
from bench.records import record
from bench.records.schema import Record, TrainingResult
from bench.training import checkpoint
from bench.training.kept import kept

FINISHED = ("done", "failed", "oom", "diverged")
"""States that a rerun leaves alone (`--retry` takes the last three again)."""
NEED_NO_CHECKPOINT = ("done", "diverged")
"""Any other failure may pass: --retry goes on from the checkpoint."""
BROKEN = "broken"
"""Folder in `out` for the folders of runs whose record cannot be read."""


def run_plan(plan: Plan, *, verbose: bool = False) -> Generator[Record]:
    """Run a plan, and yield each run's record as soon as it has ended.

    What is done is skipped, and a run that fails never stops the others. Trials of learning rates, those beyond the
    candidates too, come first and are not yielded.

    Raises:
        EnvironmentProblem: the folder of records cannot be written, a record in it is of another version, a device is
            missing, or the machine fails (`MachineProblem`).
        KeyboardInterrupt, Preempted: the command is to stop; finished runs stay finished.
    """
    request = plan.request
    make_folder(request.out)
    progress = make_progress(total=len(plan.runs) + len(plan.trials))
    with progress, preemptible() as check:
        trials = request.out / selection.FOLDER
        aside = (*_set_aside(request.out, trials, plan.trials), *_set_aside(request.out, request.out, plan.runs))
        for line in (*notes(plan), *aside):
            progress.say(line)
        check()
        tried: dict[str, Record] = {}

        def attempt(trial: PlannedRun) -> None:
            check()
            tried[trial.run_id] = _record_of(trial, request, trials, progress, verbose, {})

        for trial in plan.trials:
            attempt(trial)
        for run in plan.runs:
            while trial := selection.next_trial(run, tried):
                progress.extend()
                for line in _set_aside(request.out, trials, [trial]):
                    progress.say(line)
                attempt(trial)
        for run in plan.runs:
            check()
            yield _record_of(run, request, request.out, progress, verbose, tried)


def make_folder(out: Path) -> None:
    """Create the folder of the records, and write into it once; nothing of that stays.

    Raises:
        EnvironmentProblem: it cannot be created or written.
    """
    verb = "created"
    try:
        out.mkdir(parents=True, exist_ok=True)
        verb = "written"
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise EnvironmentProblem(
            f"--out {out} cannot be {verb}", f"{error.filename or out}: {error.strerror}", "Name another folder."
        ) from error


def _set_aside(out: Path, parent: Path, runs: Iterable[PlannedRun]) -> list[str]:
    """Move the folders in `parent` of runs whose record is broken to `out`/broken, and say so in a line each.

    Raises:
        EnvironmentProblem: a record is of another version of the schema, so its folder is left as it is.
    """
    lines: list[str] = []
    for folder in (record.folder(parent, run.run_id) for run in runs):
        try:
            if (folder / record.FILE).exists():
                record.read(folder / record.FILE)
        except record.BrokenRecord as problem:
            places = (out / BROKEN / f"{folder.name}-{number}" for number in count(1))
            aside = next(place for place in places if not place.exists())
            aside.parent.mkdir(exist_ok=True)
            folder.rename(aside)
            reason = problem.known.splitlines()[0]
            lines.append(f"{problem.what} ({reason}); its folder is now {aside}, and the run is trained again")
    return lines


def _record_of(
    run: PlannedRun, request: Request, out: Path, progress: Progress, verbose: bool, tried: selection.Tried
) -> Record:
    """Return the record of a run: the finished one in its folder, or that of training it now."""
    folder = record.folder(out, run.run_id)
    earlier = _existing(folder)
    sweep(folder)
    if earlier and earlier.state in NEED_NO_CHECKPOINT:
        checkpoint.drop(folder)  # of a process that was killed before it could
    if earlier and earlier.state in FINISHED and not (request.retry and earlier.state != "done"):
        progress.finished(run.spec, earlier, before=_done_before(earlier, folder))
        return _track(run, earlier, folder)
    check_devices(run.spec.accelerator, run.spec.devices)
    progress.begin(run.spec)
    finished = _train_run(run, request, folder, progress, verbose, tried)
    progress.finished(run.spec, finished)
    return finished


def _done_before(earlier: Record, folder: Path) -> str:
    """Say that a run was done before, and which of the weights that it kept is gone since."""
    if earlier.state == "done" and not (folder / record.ADAPTER).is_file():
        method = registry.load("methods", earlier.spec.method)  # imports torch
        for name in kept(method, earlier.spec.options.runtime.get("save", RuntimeConfig().save)):
            if not (folder / name).exists():
                return f"done before, but {name} is gone: remove {folder} to train it again"
    return "done before"


def _existing(folder: Path) -> Record | None:
    """Return the record in a folder; None if there is none, or if it broke since `_set_aside`.

    Raises:
        EnvironmentProblem: it cannot be opened, or is of another version of the schema.
    """
    try:
        return record.read(folder / record.FILE) if (folder / record.FILE).exists() else None
    except record.BrokenRecord:
        return None


def _train_run(
    run: PlannedRun, request: Request, folder: Path, progress: Progress, verbose: bool, tried: selection.Tried
) -> Record:
    """Train one run and write its record, whatever happens to it.

    Raises:
        MachineProblem: the disk or the clock failed; the record stays that of a running one, as after a kill.
        KeyboardInterrupt, Preempted: the command is to stop.
    """
    current, log = initial_record(run, request), folder / failures.LOG
    if (there := _write(current, folder)).state == "done":
        return there
    log.unlink(missing_ok=True)  # of an earlier attempt
    stop: BaseException | None = None
    try:
        run, chosen = selection.choose(run, tried, request.out)
        current = structs.replace(current, selection=chosen)
        whole = _completed(current, run, _train(run, folder, progress))
        record.validate(whole.to_json(), folder / record.FILE)  # what cannot be written is this run's failure
        current = whole
    except (Exception, KeyboardInterrupt, SystemExit, Preempted) as end:
        stop = stopped(end)
        if stop:
            current = structs.replace(current, state="preempted" if isinstance(stop, Preempted) else "cancelled")
        else:
            state, error = failures.explain(end, folder)
            current = structs.replace(current, state=state, error=error)
            if verbose and log.is_file():
                sys.stderr.write(log.read_text())
    current = _write(current, folder)
    if stop is not None:
        raise stop
    if current.state in NEED_NO_CHECKPOINT:
        checkpoint.drop(folder)
    return _track(run, current, folder)


def _write(current: Record, folder: Path) -> Record:
    """Write a record unless another command has finished the same run meanwhile; return the one that is there now."""
    there = _existing(folder)
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
        files=result.files,
    )


def _track(run: PlannedRun, current: Record, folder: Path) -> Record:
    """Mirror a finished run if that is asked for and not done yet."""
    there, kind = current.tracking, run.spec.track
    if kind == "off" or not record.is_done(current):
        return current
    if there and there.kind == kind and not there.error:
        return current
    from bench.tracking import mirror

    tracked = structs.replace(current, tracking=mirror(current, folder, kind))
    record.write(tracked, folder)
    return tracked


def stopped(end: BaseException) -> BaseException | None:
    """Return Ctrl-C or SIGTERM, which must stop the command and which Lightning may turn into SystemExit; else None."""
    if isinstance(end, SystemExit):
        from lightning.pytorch.utilities.exceptions import SIGTERMException

        return Preempted() if isinstance(end, SIGTERMException) else end.__context__ and stopped(end.__context__)
    return end if isinstance(end, KeyboardInterrupt | Preempted) else None


def _train(run: PlannedRun, folder: Path, progress: Progress) -> TrainingResult:
    """Train in this process on one device; on several in a process of its own, since Lightning repeats the command."""
    warn = partial(progress.warn, run.spec.task)
    if run.spec.devices > 1:
        from bench.harness import worker

        return worker.run(worker.job(run), folder, progress.step, warn)
    from bench.training.trainer import fit

    gc.collect()  # trainers and modules refer to each other: without it hundreds of runs fill the memory
    spec, task, dataset, backbone = run.spec, run.task, run.dataset, run.backbone
    return fit(spec, task, dataset, backbone, directory=folder, on_step=progress.step, on_warning=warn)


__all__ = ["Preempted", "make_folder", "run_plan", "stopped"]
