"""Where the runs of a folder stand now: counts, speed, what is training on which host, what failed.

All of it is read from records, claims and progress files. Nothing is written, and no process is asked.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple, TypedDict

from bench.core.errors import EnvironmentProblem
from bench.records import brief, claims, progress, record
from bench.records.brief import Brief
from bench.records.claims import Claim
from bench.records.durations import Durations
from bench.records.record import ERROR_LOG, TRIALS

FAILED = ("failed", "oom", "diverged")
STATES = ("done", "running", "waiting", "interrupted", *FAILED, "cancelled", "preempted", "unreadable")
"""Those of records. A run is running only while a process has a living claim on it, and is else interrupted. A run of a
plan that has neither record nor claim is waiting."""
HOUR_S = 3600.0

Heartbeat = Literal["", "stale", "gone"]


@dataclass(frozen=True, kw_only=True)
class Name:
    """Which run it is.

    Attributes:
        trial: whether it helps to choose another's learning rate.
        method, task, seed: None while it has no record.
    """

    run_id: str
    trial: bool
    method: str | None
    task: str | None
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A run or a trial of a plan, as `bench.harness.planner.PlannedRun` has it."""

    run_id: str
    group_id: str
    trial: bool
    method: str
    task: str


@dataclass(frozen=True, kw_only=True)
class ClaimedRun(Name):
    """A run that a process has claimed.

    Attributes:
        host, pid: of the process; None while the claim is being written.
        step, steps, loss: None where the process has not written them.
        elapsed_s: since the claim.
        left_s: estimated from its own speed, else from finished runs that differ by seed alone; None without both.
        heartbeat_s: since the process last touched the claim, by the clocks of this machine and of the file system.
        heartbeat: `stale` if that is longer than a living process takes, `gone` if the process has ended.
    """

    host: str | None
    pid: int | None
    step: int | None
    steps: int | None
    loss: float | None
    elapsed_s: float | None
    left_s: float | None
    heartbeat_s: float
    heartbeat: Heartbeat


@dataclass(frozen=True, kw_only=True)
class Failure(Name):
    """A run that failed, is out of memory or diverged.

    Attributes:
        error: first line of its error.
        log: path of the traceback in the folder of the runs; None where there is none.
    """

    state: str
    error: str
    log: str | None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Mean seconds of training and evaluation over the done runs of a method on a task, without trials."""

    method: str
    task: str
    runs: int
    mean_s: float


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `bench status --json` prints; docs/watching.md describes it.

    Attributes:
        time: of the look, in seconds since 1970.
        runs, trials: how many are in each of `STATES`.
        last_hour: runs done whose record was written in the last hour, without trials.
        left: runs of the plan that are not finished; None without a plan.
        left_s: estimated time of these and of trials that are left, one after the other, so far as it is known.
        left_unknown: how many of them are of unknown time; None without a plan.
        hosts: how many runs each host trains now.
        claimed: by start; those whose heartbeat is stale or gone come last.
        failures: the latest first.
    """

    folder: str
    time: float
    runs: dict[str, int]
    trials: dict[str, int]
    last_hour: int
    left: int | None
    left_s: float | None
    left_unknown: int | None
    hosts: dict[str, int]
    claimed: list[ClaimedRun]
    failures: list[Failure]
    speed: list[Speed]


class _Named(TypedDict):
    """The fields of a Name."""

    run_id: str
    trial: bool
    method: str | None
    task: str | None
    seed: int | None


@dataclass(frozen=True)
class _Beat:
    """A claim file: who wrote it, and since when it is untouched."""

    claim: Claim | None
    age_s: float


@dataclass(frozen=True)
class _Run:
    """A run as its files show it."""

    run_id: str
    trial: bool
    folder: Path
    seen: brief.Seen | None
    beat: _Beat | None

    @property
    def brief(self) -> Brief | None:
        return self.seen.brief if self.seen else None

    @cached_property
    def heartbeat(self) -> Heartbeat:
        assert self.beat
        if self.beat.claim and self.beat.claim.gone:
            return "gone"
        asked = self.brief.spec.options.runtime.get("claim_s") if self.brief else None
        stale_s = asked if isinstance(asked, int | float) else claims.STALE_S
        return "stale" if self.beat.age_s >= stale_s else ""

    @cached_property
    def state(self) -> str:
        if self.seen is None and self.beat is None:
            return "waiting"
        there = self.brief.state if self.brief else "unreadable" if self.seen else "running"
        if self.beat and not self.heartbeat and there != "done":  # a done run may still be mirrored
            return "running"
        return "interrupted" if there == "running" else there

    @property
    def name(self) -> _Named:
        spec = self.brief.spec if self.brief else None
        return _Named(
            run_id=self.run_id,
            trial=self.trial,
            method=spec.method if spec else None,
            task=spec.task if spec else None,
            seed=spec.seed if spec else None,
        )


class Watcher:
    """Looks at a folder of runs, as often as one likes, and reads again only the records that have changed.

    Args:
        folder: of the runs.
        wanted: the runs and trials of a plan, of which the status is then, and of trials in the folder with the same
            methods and tasks: those beyond the candidates are in no plan. None: all that is in the folder.
    """

    def __init__(self, folder: Path, wanted: Collection[Wanted] | None = None) -> None:
        self.folder, self.wanted = folder, wanted
        self._seen: dict[Path, brief.Seen] = {}
        self._beats: dict[Path, tuple[int, float, float]] = {}

    def look(self) -> Status:
        """Raises EnvironmentProblem if there is no such folder, or it cannot be read; of a plan, all then waits."""
        runs = [*self._planned()] if self.wanted is not None else [*self._scan(self.folder, trials=False)]
        with contextlib.suppress(EnvironmentProblem):  # nothing was selected here
            runs += self._scan(self.folder / TRIALS, trials=True)
        places = {run.folder for run in runs}
        for kept in (self._seen, self._beats):
            for gone in kept.keys() - places:
                del kept[gone]
        if self.wanted is not None:
            runs = _of_plan(self.folder, runs, self.wanted)
        return _summed_up(self.folder, runs, self.wanted)

    def _planned(self) -> Iterable[_Run]:
        return (self._run(self.folder / one.run_id, trial=False) for one in self.wanted or () if not one.trial)

    def _scan(self, folder: Path, *, trials: bool) -> Iterable[_Run]:
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if record.is_run_id(entry.name))
        except OSError as error:
            what = f"no folder {folder}" if isinstance(error, FileNotFoundError) else f"cannot read {folder}"
            known = error.strerror or str(error)
            todo = "Name the folder of the records: --runs DIR. With --watch the command waits for it."
            raise EnvironmentProblem(what, known, todo) from error
        for name in names:
            if (run := self._run(folder / name, trials)).seen or run.beat:
                yield run

    def _run(self, folder: Path, trial: bool) -> _Run:
        beat = self._beat(folder)
        seen = self._record(folder)
        if seen and seen.brief and seen.brief.state == "running" and beat is None:
            # it may have begun, or ended, between the two looks: a claim comes before its record and leaves after it
            beat = self._beat(folder)
            seen = self._record(folder)
        trial = trial or bool(seen and seen.brief and seen.brief.spec.holdout)
        return _Run(folder.name, trial, folder, seen, beat)

    def _record(self, folder: Path) -> brief.Seen | None:
        seen = brief.look(folder, self._seen.get(folder))
        if seen:
            self._seen[folder] = seen
        return seen

    def _beat(self, folder: Path) -> _Beat | None:
        """The claim of a run. From its second touch on it is timed by the clock of this process alone."""
        try:
            status = (folder / claims.FILE).stat()
        except OSError:
            return None
        now = time.monotonic()
        before = self._beats.get(folder)
        if before is None:
            before = status.st_mtime_ns, now, max(0.0, time.time() - status.st_mtime)
        elif before[0] != status.st_mtime_ns:
            before = status.st_mtime_ns, now, 0.0
        self._beats[folder] = before
        _, since, age_s = before
        claim = claims.read(folder)
        return _Beat(claim, age_s + now - since)


def _of_plan(folder: Path, runs: Iterable[_Run], wanted: Collection[Wanted]) -> list[_Run]:
    """Return the runs of a plan and its trials, those that have not begun too."""
    trials = {one.run_id: one for one in wanted if one.trial}
    work = {(one.method, one.task) for one in trials.values()}
    found: list[_Run] = []
    for run in runs:
        if run.trial and run.run_id not in trials:
            spec = run.brief.spec if run.brief else None
            if spec is None or (spec.method, spec.task) not in work:
                continue
        found.append(run)
    there = {run.run_id for run in found if run.trial}
    waiting = (name for name in trials if name not in there)
    return [*found, *(_Run(name, True, folder / TRIALS / name, None, None) for name in waiting)]


def _summed_up(folder: Path, runs: Sequence[_Run], wanted: Collection[Wanted] | None) -> Status:
    now = time.time()
    counted = Counter(run.state for run in runs if not run.trial)
    trials = Counter(run.state for run in runs if run.trial)
    finished = [run for run in runs if run.brief and run.brief.state == "done"]
    own = [run for run in finished if not run.trial]
    durations = Durations(run.brief for run in finished if run.brief)
    claimed = _claimed(runs, durations, now)
    left = _left(runs, claimed, wanted, durations) if wanted is not None else None
    return Status(
        folder=str(folder),
        time=round(now, 1),
        runs={state: counted[state] for state in STATES},
        trials={state: trials[state] for state in STATES},
        last_hour=sum(run.seen is not None and now - run.seen.written <= HOUR_S for run in own),
        left=left.runs if left else None,
        left_s=_rounded(left.seconds) if left else None,
        left_unknown=left.unknown if left else None,
        hosts=dict(sorted(Counter(run.host or "" for run in claimed if not run.heartbeat).items())),
        claimed=claimed,
        failures=_failures(folder, runs),
        speed=_speed(own),
    )


class _Left(NamedTuple):
    """The runs of a plan that are not finished; known time of these and their trials; how many have no known time."""

    runs: int
    seconds: float
    unknown: int


def _left(runs: Sequence[_Run], claimed: Iterable[ClaimedRun], wanted: Iterable[Wanted], durations: Durations) -> _Left:
    open_runs = {run.run_id: run for run in runs if run.state not in ("done", *FAILED)}
    number = sum(not run.trial for run in open_runs.values())
    planned = {one.run_id: one for one in wanted}
    training = {one.run_id: one.left_s for one in claimed if not one.heartbeat}
    times: list[float | None] = []
    for run_id in open_runs if number else ():  # trials are made for runs
        one = planned.get(run_id)
        seconds = training.get(run_id)
        if one and run_id not in training:  # one that was interrupted counts as a whole
            seconds = durations.of_group(one.group_id)
            seconds = durations.of_work(one.method, one.task, trial=one.trial) if seconds is None else seconds
        times.append(seconds)
    return _Left(number, sum(seconds or 0.0 for seconds in times), times.count(None))


def _claimed(runs: Sequence[_Run], durations: Durations, now: float) -> list[ClaimedRun]:
    found: list[ClaimedRun] = []
    for run in runs:
        if run.beat is None or run.state not in ("running", "interrupted"):
            continue
        claim, there = run.beat.claim, run.brief
        known = progress.read(run.folder, claim.owner) if claim else None
        elapsed_s = _since(claim.since, now) if claim else None
        left_s = known.left_s if known else None
        whole_s = durations.of_group(there.group_id) if there else None
        if left_s is None and elapsed_s is not None and whole_s is not None:
            left_s = max(0.0, whole_s - elapsed_s)
        found.append(
            ClaimedRun(
                **run.name,
                host=claim.host if claim else None,
                pid=claim.pid if claim else None,
                step=known.step if known else None,
                steps=known.steps if known and known.steps is not None else there.spec.max_steps if there else None,
                loss=known.loss if known else None,
                elapsed_s=_rounded(elapsed_s),
                left_s=_rounded(None if run.heartbeat else left_s),
                heartbeat_s=round(run.beat.age_s, 1),
                heartbeat=run.heartbeat,
            )
        )
    return sorted(found, key=lambda run: (bool(run.heartbeat), -(run.elapsed_s or 0.0), run.run_id))


def _failures(folder: Path, runs: Sequence[_Run]) -> list[Failure]:
    failed = [(run.seen.written, run, run.brief) for run in runs if run.seen and run.brief and run.state in FAILED]
    made: list[Failure] = []
    for _, run, there in sorted(failed, key=lambda item: (-item[0], item[1].run_id)):
        error = there.error.what.splitlines() if there.error else []
        log = run.folder / ERROR_LOG
        made.append(
            Failure(
                **run.name,
                state=there.state,
                error=error[0] if error else "",
                log=str(log.relative_to(folder)) if log.is_file() else None,
            )
        )
    return made


def _speed(runs: Iterable[_Run]) -> list[Speed]:
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        if run.brief and (seconds := run.brief.seconds) is not None:
            took[run.brief.spec.method, run.brief.spec.task].append(seconds)
    return [
        Speed(method=method, task=task, runs=len(all_s), mean_s=round(fmean(all_s), 1))
        for (method, task), all_s in sorted(took.items())
    ]


def _since(moment: str, now: float) -> float | None:
    try:
        return max(0.0, now - datetime.fromisoformat(moment).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
