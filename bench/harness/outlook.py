"""What is known of the runs of a plan before anything trains: their state, their size, and the time that they take.

Size and time are those of finished runs in the same folder that differ by seed and learning rate alone; failing these,
the time is that of finished runs of the same method, task, backbone and number of steps.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.harness.attempt import FINISHED, existing
from bench.harness.planner import Plan, PlannedRun
from bench.harness.selection import known_trials
from bench.records import claims, progress, record
from bench.records.index import load_slim
from bench.records.record import is_done
from bench.records.schema import Record
from bench.records.spec import deciding
from bench.training import checkpoint

INTERRUPTED = ("running", "cancelled", "preempted")
ALIKE = ("seed", "lr", "select", "space", "trials", "select_on", "widen", "holdout")
"""Fields of a specification that change neither size nor time of a run; with allocation.policy=gradient seed does."""
BUDGET = ("max_steps", "epochs", "batch_size", "train_samples", "evaluate", "precision")
"""Fields that do not change its size, beside these."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A short measurement of a run.

    Attributes:
        trainable: parameters that train, head included.
        seconds: that the whole run would take.
        error: why it cannot train; empty where it can.
    """

    trainable: int | None = None
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """One run, or one trial.

    Attributes:
        state: `new`, `done`, `failed`, …, `interrupted at step 50`, or `on HOST` while a process trains it.
        left_alone: whether the command will not train it.
        cannot_train: whether it would fail at once.
        why: the reason of that, or of what is unusual about it; may be empty.
        trainable: parameters that train, head included; None where unknown.
        seconds: estimated time of what is left of it; None where unknown.
    """

    run: PlannedRun
    state: str
    left_alone: bool
    cannot_train: bool
    why: str
    trainable: int | None
    steps: int
    seconds: float | None

    def to_json(self) -> dict[str, object]:
        return {
            "state": self.state,
            "left_alone": self.left_alone,
            "cannot_train": self.cannot_train,
            "why": self.why,
            "given": {".".join(name): value for name, value in self.run.given.items()},
            "trainable": self.trainable,
            "steps": self.steps,
            "estimated_s": None if self.seconds is None else round(self.seconds, 1),
        }


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The outlook of every run of a plan, and of its trials, in the plan's order.

    Attributes:
        trials: those that follow from the records there are.
        to_come: how many more optuna will suggest once these have ended; equal ones are made once.
    """

    runs: tuple[Outlook, ...]
    trials: tuple[Outlook, ...]
    to_come: int = 0

    @property
    def seconds(self) -> float:
        """Estimated time of all that is left and whose time is known."""
        return sum(one.seconds or 0 for one in (*self.runs, *self.trials))

    @property
    def unknown(self) -> int:
        """How many runs and trials are left whose time is unknown."""
        return sum(one.seconds is None for one in (*self.runs, *self.trials))

    @property
    def sizes_unknown(self) -> bool:
        """Whether it is unknown how many parameters some run or trial trains that is left and has its options."""
        left = (one for one in (*self.runs, *self.trials) if not (one.left_alone or one.run.spec.space))
        return any(one.trainable is None for one in left)

    def to_json(self) -> dict[str, object]:
        """Return the totals."""
        return {
            "runs": len(self.runs),
            "done": sum(one.state == "done" for one in self.runs),
            "left_alone": sum(one.left_alone for one in self.runs),
            "trials": len(self.trials),
            "trials_left": sum(not one.left_alone for one in self.trials),
            "trials_to_come": self.to_come,
            "estimated_s": None if self.unknown else round(self.seconds, 1),
            "unknown": self.unknown,
        }


def forecast(plan: Plan, measured: Mapping[str, Measured] | None = None) -> Forecast:
    """Look at the folder of a plan's records; nothing is trained, and nothing written.

    Args:
        plan: the plan.
        measured: `kind` of a run → its measurement, which counts where no finished run says it.

    Raises:
        EnvironmentProblem: a record of one of the runs is of another version of the schema.
    """
    request = plan.request
    folders = (request.out, request.out / record.TRIALS)
    trials, to_come = known_trials(plan.runs, lambda trial: _ended(trial, folders[1], retry=request.retry))
    every = (*plan.runs, *trials)
    states = [_state(run, folders[bool(run.spec.holdout)], retry=request.retry) for run in every]
    known = _Finished(folders if not all(left_alone for _, left_alone, *_ in states) else folders[:0])
    known.add(every, measured or {})
    looked = [known.outlook(run, *state) for run, state in zip(every, states, strict=True)]
    return Forecast(runs=tuple(looked[: len(plan.runs)]), trials=tuple(looked[len(plan.runs) :]), to_come=to_come)


def kind(run: PlannedRun) -> str:
    """What runs that train alike have in common: all but seed and learning rate."""
    return _key(run.spec.to_json(), run.dataset.hash, run.backbone.weights_hash, ALIKE)


def _ended(trial: PlannedRun, parent: Path, *, retry: bool) -> Record | None:
    """Return the record of a trial that will not be trained again."""
    there = existing(record.folder(parent, trial.run_id))
    return there if there and there.state in (("done",) if retry else FINISHED) else None


def _state(run: PlannedRun, parent: Path, *, retry: bool) -> tuple[str, bool, str, int]:
    """Return state, whether it is left alone, why, and the step from which it goes on."""
    folder = record.folder(parent, run.run_id)
    claim = claims.read(folder)
    if claim and not claim.gone:
        step = progress.read(folder, claim.owner)
        return f"on {claim.host}", True, f"process {claim.pid} trains it now", step.step if step else 0
    there = existing(folder)
    if there is None:
        broken = (folder / record.FILE).exists()
        return ("broken", False, "its record cannot be read, and is set aside", 0) if broken else ("new", False, "", 0)
    if there.state in INTERRUPTED:
        step = checkpoint.step(folder) or 0
        return f"interrupted at {step}" if step else "interrupted", False, "", step
    if there.state == "done":
        return "done", True, "", 0
    why = there.error.what if there.error else ""
    return there.state, there.state in FINISHED and not retry, why, 0


class _Finished:
    """Sizes and times of the finished runs in some folders."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.sizes: dict[str, int] = {}
        self.times: dict[str, list[float]] = defaultdict(list)
        self.measured: Mapping[str, Measured] = {}
        for folder in folders:
            for one in filter(is_done, load_slim(folder)[0]):
                spec, cost = one.spec.to_json(), one.cost
                hashes = one.source.data_hash, one.backbone.weights_hash
                self.sizes[_size_key(spec, *hashes)] = one.params.trainable
                self.times[_key(spec, *hashes, ALIKE)].append(cost.train_s + cost.eval_s)
                self.times[_rough(spec, cost.steps)].append(cost.train_s + cost.eval_s)

    def add(self, runs: Iterable[PlannedRun], measured: Mapping[str, Measured]) -> None:
        """Take measurements too: the size of a run is also that of runs with another budget."""
        self.measured = measured
        for run in runs:
            found = measured.get(kind(run))
            if found and found.trainable is not None:
                self.sizes.setdefault(_size_of(run), found.trainable)

    def outlook(self, run: PlannedRun, state: str, left_alone: bool, why: str, step: int) -> Outlook:
        steps = _steps(run)
        found = self.measured.get(kind(run), Measured())
        times = self.times.get(kind(run)) or self.times.get(_rough(run.spec.to_json(), steps)) or []
        whole = fmean(times) if times else found.seconds
        cannot_train = bool(found.error) and not left_alone
        seconds = None if whole is None else whole * max(0, steps - step) / steps
        return Outlook(
            run=run,
            state=state,
            left_alone=left_alone,
            cannot_train=cannot_train,
            why=f"cannot train: {found.error}" if cannot_train else why,
            trainable=None if run.spec.space else self.sizes.get(_size_of(run)),  # it depends on what is chosen
            steps=steps,
            seconds=0.0 if left_alone or cannot_train else seconds,
        )


def _steps(run: PlannedRun) -> int:
    examples = len(run.dataset.train)
    return run.spec.steps(min(run.spec.train_samples or examples, examples) - run.spec.holdout)


def _size_of(run: PlannedRun) -> str:
    return _size_key(run.spec.to_json(), run.dataset.hash, run.backbone.weights_hash)


def _size_key(spec: Mapping[str, Any], data_hash: str, weights_hash: str) -> str:
    options = {name: spec["options"][name] for name in ("method", "task", "backbone", "head", "allocation")}
    return _key({**spec, "options": options}, data_hash, weights_hash, (*ALIKE, *BUDGET))


def _rough(spec: Mapping[str, Any], steps: int) -> str:
    return json.dumps([spec["method"], spec["task"], spec["backbone"], spec["batch_size"], steps])


def _key(spec: Mapping[str, Any], data_hash: str, weights_hash: str, left_out: Iterable[str]) -> str:
    by_batch = spec["options"]["allocation"].get("policy") == "gradient"  # of the first batch, which the seed draws
    out = {*left_out} - {"seed"} if by_batch else {*left_out}
    rest = {name: value for name, value in deciding(spec).items() if name not in out}
    return json.dumps([rest, data_hash, weights_hash], sort_keys=True)
