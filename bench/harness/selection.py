"""Chooses learning rate and options: the trials that are to be made, and the best of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.core.errors import BenchError
from bench.harness import search
from bench.harness.planner import PlannedRun
from bench.records.record import TRIALS
from bench.records.results import Selection, Trial
from bench.records.schema import Record

Tried = Mapping[str, Record]
"""Run id of a trial → its record."""


def open_trials(run: PlannedRun, tried: Tried) -> list[PlannedRun]:
    """The trials that are to be made before this run, so far as they follow from the results of others.

    Of every combination of candidates: while the best rate is the smallest or the largest of those tried with the same
    options, one more lies beyond it, `spec.widen` times at most. With `spec.trials`: a generation of what optuna
    suggests.
    """
    return [trial for trial in _trials(run, tried) if trial.run_id not in tried]


def known_trials(
    runs: Iterable[PlannedRun], read: Callable[[PlannedRun], Record | None]
) -> tuple[list[PlannedRun], int]:
    """The distinct trials of some runs that follow from the records there are, and how many optuna will yet suggest.

    Args:
        runs: planned ones.
        read: returns the record of a trial that has ended, None for any other.
    """
    known: dict[str, PlannedRun] = {}
    tried: dict[str, Record] = {}
    to_come: dict[tuple[str, ...], int] = {}
    for run in runs:
        while True:
            trials = _trials(run, tried)
            new = [trial for trial in trials if trial.run_id not in known]
            known |= {trial.run_id: trial for trial in new}
            ended = {trial.run_id: there for trial in new if (there := read(trial))}
            tried |= ended
            if not ended:
                break
        to_come[*sorted(trial.run_id for trial in trials)] = (
            run.spec.trials and run.spec.trials - _suggested(run, tried)[1]
        )
    return [*known.values()], sum(to_come.values())


def choose(run: PlannedRun, tried: Tried, out: Path) -> tuple[PlannedRun, Selection | None]:
    """Return the run with the values of its best trial, and how they were chosen.

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
    names = [name for name, _ in run.spec.space]
    if best is None:
        states = ", ".join(tried[trial.run_id].state for trial in trials)
        todo = f"Read their records in {out / TRIALS}, then rerun with --retry."
        what = ", ".join([*(["the learning rate"] if run.spec.select else []), *names])
        raise BenchError(f"no trial of {what} has a score", f"states of the trials: {states}", todo)
    records = [tried[trial.run_id] for trial in trials]
    selection = Selection(
        trials=tuple(
            Trial(
                lr=_rate(trial),
                options={name: trial.spec.options.value(name) for name in names},
                value=_value(there),
                run_id=trial.run_id,
                state=there.state,
            )
            for trial, there in zip(trials, records, strict=True)
        ),
        # the method's own metric, where it has one
        metric=next(there.metrics.primary.name for there in records if there.metrics),
        split="holdout",
        task=best.spec.task,
        chosen=_rate(best),
        options={name: best.spec.options.value(name) for name in names},
    )
    return replace(run, spec=run.spec.chosen({search.LR: selection.chosen, **selection.options})), selection


def _trials(run: PlannedRun, tried: Tried) -> list[PlannedRun]:
    """The distinct trials of a run, so far as they are known now."""
    return _suggested(run, tried)[0] if run.spec.trials else _widened(run, tried)


def _suggested(run: PlannedRun, tried: Tried) -> tuple[list[PlannedRun], int]:
    """The trials that optuna suggests, each once, and the number of suggestions, equal ones counted again."""
    trials: list[PlannedRun] = []
    results: list[search.Result] = []
    while run.trials and len(trials) < run.spec.trials:
        suggested = search.suggestions(run.spec, results)[len(trials) :]
        trials += [_at(run.trials[0], values) for values in suggested]
        ids = [trial.run_id for trial in trials[len(results) :]]
        if not all(run_id in tried for run_id in ids):
            break
        results.extend(_result(tried[run_id]) for run_id in ids)
    return [*{trial.run_id: trial for trial in trials}.values()], len(trials)


def _result(there: Record) -> search.Result:
    if there.metrics:
        return _merit(there)
    return "diverged" if there.state == "diverged" else "failed"


def _widened(run: PlannedRun, tried: Tried) -> list[PlannedRun]:
    """Every combination of the candidates, by learning rate, and what lies beyond them."""
    trials = sorted(run.trials, key=_rate)
    while len(trials) < len(run.trials) + run.spec.widen and all(trial.run_id in tried for trial in trials):
        best = _best(trials, tried)
        rates = _rates_beside(best, trials) if best else []
        if best and len(rates) > 1 and _rate(best) == rates[-1]:
            trials.append(_at(best, {search.LR: _beyond(rates)}))
        elif best and len(rates) > 1 and _rate(best) == rates[0]:
            trials.append(_at(best, {search.LR: _beyond(rates[::-1])}))
        else:
            break
        trials.sort(key=_rate)
    return trials


def _best(trials: Sequence[PlannedRun], tried: Tried) -> PlannedRun | None:
    """The trial with the best score, of equal ones rather one between others; None where none has a score."""

    def merit(trial: PlannedRun) -> tuple[float, bool]:
        rates = _rates_beside(trial, trials)
        return _merit(tried[trial.run_id]), rates[0] < _rate(trial) < rates[-1]

    scored = [trial for trial in trials if tried[trial.run_id].metrics]
    return max(scored, key=merit, default=None)


def _rates_beside(trial: PlannedRun, trials: Iterable[PlannedRun]) -> list[float]:
    """The learning rates that were tried with the options of a trial, ascending."""
    return sorted(_rate(other) for other in trials if other.spec.options == trial.spec.options)


def _merit(there: Record) -> float:
    assert there.metrics  # only those with a score are compared
    primary = there.metrics.primary
    return primary.value if primary.higher_is_better else -primary.value


def _beyond(rates: Sequence[float]) -> float:
    """The rate that goes on as the last ones do: 4e-3 after 1e-3, 2e-3, and 1e-2 after 3e-4, 1e-3, 3e-3."""
    *_, before, last = rates
    following = last * last / before if len(rates) == 2 else before * last / rates[-3]
    return float(f"{following:.3g}")


def _at(trial: PlannedRun, values: search.Values) -> PlannedRun:
    return replace(trial, spec=trial.spec.at(values))


def _rate(trial: PlannedRun) -> float:
    rate = trial.spec.lr
    assert rate is not None  # a trial is of one candidate
    return rate


def _value(there: Record) -> float | None:
    return there.metrics.primary.value if there.metrics else None
