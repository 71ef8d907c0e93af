"""Which values a selection tries: every combination of its candidates, or what optuna suggests.

Suggestions are a pure function of candidates and results: the study is replayed in memory from the results so far. So
every process that sees the same records computes the same trials, and no database stands beside the records.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Literal

from bench.config.options import Value
from bench.core.errors import EnvironmentProblem
from bench.records.spec import Candidates, RunSpec

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

LR = "lr"
"""Name of the learning rate among the values of a trial; those of options have a dot."""
FIRST, GENERATION = 8, 4
"""Trials that are drawn at random, and those that are then suggested at a time, each from the results of all before.

Fixed numbers, so that neither the number of processes nor `--trials` changes which values come first.
"""

Values = Mapping[str, Value]
"""`lr` and options by name → the value that a trial has."""
Result = float | Literal["diverged", "failed"]
"""Score of a trial, higher is better, or how it ended without one."""


def check_engine() -> None:
    """Look for what `--trials` needs, before anything is planned.

    Raises:
        EnvironmentProblem: optuna is not installed.
    """
    if find_spec("optuna") is None:
        raise EnvironmentProblem(
            "--trials needs optuna, which is not installed",
            "it suggests the trials of a selection",
            "Run: pip install 'lowrank-bench[select]'. Or leave --trials out: every combination is tried.",
        )


def combinations(spec: RunSpec) -> list[Values]:
    """Every combination of the candidates of a specification, by the learning rate first."""
    every = [*([Candidates(LR, spec.select)] if spec.select else []), *spec.space]
    names = [name for name, _ in every]
    return [dict(zip(names, values, strict=True)) for values in product(*(values for _, values in every))]


def suggestions(spec: RunSpec, results: Sequence[Result] = ()) -> list[Values]:
    """The values of the trials with these results, and of the generation after them, `spec.trials` at most.

    Learning rates lie between the two of `spec.select`, are drawn by their logarithm and rounded to three digits;
    options are drawn from their candidates. Values may come up again.

    Args:
        results: those of all trials of some generations, in order.
    """
    candidates = dict(spec.space)
    sizes = tuple((name, len(values)) for name, values in spec.space)
    drawn = _replay(sizes, spec.select, spec.trials, tuple(results))
    return [
        {
            name: _rounded(value, *spec.select) if name == LR else candidates[name][int(value)]
            for name, value in one.items()
        }
        for one in drawn
    ]


def _rounded(rate: float, low: float, high: float) -> float:
    return min(max(float(f"{rate:.3g}"), low), high)


@lru_cache(maxsize=256)
def _replay(
    sizes: tuple[tuple[str, int], ...], rates: tuple[float, ...], most: int, results: tuple[Result, ...]
) -> tuple[Mapping[str, float], ...]:
    """What optuna suggests: a learning rate between two, and for each option the place of a candidate, of which `sizes`
    has the number.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {LR: FloatDistribution(*rates, log=True)} if rates else {}
    space |= {name: CategoricalDistribution(range(size)) for name, size in sizes}
    drawn: list[Mapping[str, float]] = []
    with _quiet():
        # all that suggestions depend on is said here, since defaults change between versions
        sampler = optuna.samplers.TPESampler(
            seed=0, n_startup_trials=FIRST, n_ei_candidates=24, multivariate=True, constant_liar=True
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        while True:
            number = min(GENERATION if drawn else FIRST, most - len(drawn))
            trials = [study.ask(space) for _ in range(number)]
            known = results[len(drawn) : len(drawn) + number]
            drawn += [trial.params for trial in trials]
            if not known:
                return tuple(drawn)
            for trial, result in zip(trials, known, strict=True):
                _tell(study, trial, result)


def _tell(study: Study, trial: Trial, result: Result) -> None:
    """Tell optuna a result. That training diverged speaks against such values, as a pruned trial does; another failure
    says nothing about them."""
    from optuna.trial import TrialState

    if isinstance(result, str):
        study.tell(trial, state=TrialState.PRUNED if result == "diverged" else TrialState.FAIL)
    else:
        study.tell(trial, result)


@contextmanager
def _quiet() -> Generator[None]:
    """Keep optuna's lines about each trial out of the output, and leave its level as the caller has set it."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
