"""Chooses a learning rate: the trials of the candidates, trials beyond them, and the best of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.core.errors import BenchError
from bench.harness.planner import PlannedRun
from bench.records.record import TRIALS
from bench.records.schema import Record, Selection, Trial

Tried = Mapping[str, Record]
"""Run id of a trial → its record."""


def open_trials(run: PlannedRun, tried: Tried) -> list[PlannedRun]:
    """The trials that are to be made before this run, so that the best learning rate lies between others.

    While the best of those tried is the smallest or the largest, one more lies beyond it, `spec.widen` times at most.
    """
    return [trial for trial in _trials(run, tried) if trial.run_id not in tried]


def choose(run: PlannedRun, tried: Tried, out: Path) -> tuple[PlannedRun, Selection | None]:
    """Return the run with the learning rate of its best trial, and how it was chosen.

    Args:
        tried: the records of all its trials.
        out: folder of the run's record, for the error.

    Raises:
        BenchError: no trial has a score.
    """
    if not run.trials:
        return run, None
    trials = [trial for trial in _trials(run, tried) if trial.run_id in tried]
    best = _best(trials, tried)
    if best is None:
        states = ", ".join(tried[trial.run_id].state for trial in trials)
        todo = f"Read their records in {out / TRIALS}, then rerun with --retry."
        raise BenchError("no trial of the learning rate has a score", f"states of the trials: {states}", todo)
    records = [tried[trial.run_id] for trial in trials]
    rate = _rate(best)
    selection = Selection(
        trials=tuple(
            Trial(lr=_rate(trial), value=_value(there), run_id=trial.run_id, state=there.state)
            for trial, there in zip(trials, records, strict=True)
        ),
        # the method's own metric, where it has one
        metric=next(there.metrics.primary.name for there in records if there.metrics),
        split="holdout",
        task=best.spec.task,
        chosen=rate,
    )
    return replace(run, spec=run.spec.with_(lr=rate)), selection


def _trials(run: PlannedRun, tried: Tried) -> list[PlannedRun]:
    """The trials of a run by learning rate: those of its candidates, and those beyond them so far as is known now."""
    trials = sorted(run.trials, key=_rate)
    while 1 < len(trials) < len(run.trials) + run.spec.widen and all(trial.run_id in tried for trial in trials):
        best = _best(trials, tried)
        if best is trials[-1]:
            trials.append(_at(trials[-1], _beyond([_rate(trial) for trial in trials])))
        elif best is trials[0]:
            trials.insert(0, _at(trials[0], _beyond([_rate(trial) for trial in reversed(trials)])))
        else:
            break
    return trials


def _best(trials: Sequence[PlannedRun], tried: Tried) -> PlannedRun | None:
    """The trial with the best score, of equal ones rather one between others; None where none has a score."""

    def merit(trial: PlannedRun) -> tuple[float, bool]:
        metrics = tried[trial.run_id].metrics
        assert metrics  # only those with a score are compared
        primary, inside = metrics.primary, _rate(trials[0]) < _rate(trial) < _rate(trials[-1])
        return primary.value if primary.higher_is_better else -primary.value, inside

    scored = [trial for trial in trials if tried[trial.run_id].metrics]
    return max(scored, key=merit, default=None)


def _beyond(rates: Sequence[float]) -> float:
    """The rate that goes on as the last ones do: 4e-3 after 1e-3, 2e-3, and 1e-2 after 3e-4, 1e-3, 3e-3."""
    *_, before, last = rates
    following = last * last / before if len(rates) == 2 else before * last / rates[-3]
    return float(f"{following:.3g}")


def _at(trial: PlannedRun, rate: float) -> PlannedRun:
    return replace(trial, spec=trial.spec.with_(lr=rate))


def _rate(trial: PlannedRun) -> float:
    rate = trial.spec.lr
    assert rate is not None  # a trial is of one candidate
    return rate


def _value(there: Record) -> float | None:
    return there.metrics.primary.value if there.metrics else None
