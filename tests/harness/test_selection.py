"""Which learning rates a selection tries, and which one it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.errors import BenchError, UsageError
from bench.harness import selection
from bench.harness.planner import PlannedRun, make_plan
from bench.harness.request import Request, make_request
from bench.records.data import DataRequest
from bench.records.results import Selection, Trial
from bench.records.schema import Record

Score = Callable[[float], float | None]


def planned(tmp_path: Path, *, rates: tuple[float, ...], widen: int = 3) -> PlannedRun:
    request = Request(
        methods=("full",),
        tasks=("digits",),
        out=tmp_path,
        data=DataRequest(data="embedded"),
        select=("lr",),
        widen=widen,
        lrs=rates,
    )
    return make_plan(request).runs[0]


@pytest.fixture
def choice(make_record: Callable[..., Record], tmp_path: Path) -> Callable[..., Selection]:
    """Makes every trial that a selection among `rates` wants, one after the other, and returns the choice."""

    def record(trial: PlannedRun, value: float | None, higher_is_better: bool) -> Record:
        if value is None:
            return make_record(state="diverged", metrics=None, error={"what": "inf", "known": "", "todo": ""})
        return make_record(metrics={"primary": {"value": value, "higher_is_better": higher_is_better}})

    def choose(rates: tuple[float, ...], score: Score, *, widen: int = 3, higher: bool = True) -> Selection:
        run = planned(tmp_path, rates=rates, widen=widen)
        tried: dict[str, Record] = {}
        for trial in run.trials:
            tried[trial.run_id] = record(trial, score(trial.spec.lr or 0), higher)
        while open_trials := selection.open_trials(run, tried):
            [trial] = open_trials
            assert trial.run_id not in tried
            tried[trial.run_id] = record(trial, score(trial.spec.lr or 0), higher)
        chosen, made = selection.choose(run, tried, tmp_path)
        assert made and chosen.spec.lr == made.chosen
        return made

    return choose


def peak(at: float) -> Score:
    return lambda rate: -abs(math.log10(rate) - math.log10(at))


@pytest.mark.parametrize(
    ("best", "widen", "rates", "edge"),
    [
        (1e-3, 3, [3e-4, 1e-3, 3e-3], ""),
        (3e-3, 3, [3e-4, 1e-3, 3e-3, 1e-2], ""),
        (1e-2, 3, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2], ""),
        (1, 3, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1], "largest"),
        (3e-5, 3, [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3], ""),
        (1e-9, 2, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3], "smallest"),
        (1e-2, 0, [3e-4, 1e-3, 3e-3], "largest"),
    ],
)
def test_candidates_are_widened_until_the_best_lies_inside(
    choice: Callable[..., Selection], best: float, widen: int, rates: list[float], edge: str
) -> None:
    made = choice((1e-3, 3e-4, 3e-3), peak(best), widen=widen)
    assert [trial.lr for trial in made.trials] == pytest.approx(rates)
    assert made.chosen == min(rates, key=lambda rate: abs(math.log10(rate) - math.log10(best)))
    assert made.edge == edge
    assert len(made.warnings) == bool(edge) and all(edge in text for text in made.warnings)


def test_two_candidates_are_widened_by_their_factor(choice: Callable[..., Selection]) -> None:
    made = choice((1e-3, 2e-3), peak(4e-3))
    assert [trial.lr for trial in made.trials] == [1e-3, 2e-3, 4e-3, 8e-3]


def test_equal_scores_are_no_reason_to_widen(choice: Callable[..., Selection]) -> None:
    made = choice((3e-4, 1e-3, 3e-3), lambda _: 0.0)
    assert ([trial.lr for trial in made.trials], made.chosen, made.edge) == ([3e-4, 1e-3, 3e-3], 1e-3, "")


def test_a_rate_that_diverges_bounds_the_search(choice: Callable[..., Selection]) -> None:
    made = choice((3e-4, 1e-3, 3e-3), lambda rate: rate if rate < 2e-2 else None)
    assert [trial.lr for trial in made.trials] == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    assert (made.chosen, made.edge, made.trials[-1].value) == (1e-2, "", None)


def test_a_rate_that_failed_otherwise_bounds_nothing() -> None:
    rates = [(1e-3, 0.5, "done"), (3e-3, 0.6, "done"), (1e-2, None, "oom")]
    trials = tuple(Trial(lr=lr, value=value, run_id=None, state=state) for lr, value, state in rates)
    assert Selection(trials=trials, metric="m", split="holdout", task="t", chosen=3e-3).edge == "largest"


def test_a_lower_loss_is_the_better_one(choice: Callable[..., Selection]) -> None:
    loss = {3e-4: 0.7, 1e-3: 0.2, 3e-3: 0.4}
    assert choice(tuple(loss), loss.get, higher=False).chosen == 1e-3
    assert choice(tuple(loss), loss.get, widen=0).chosen == 3e-4


def test_no_score_at_all_is_an_error(choice: Callable[..., Selection]) -> None:
    with pytest.raises(BenchError, match="no trial of the learning rate has a score"):
        choice((3e-4, 1e-3), lambda _: None)


def test_widening_is_part_of_the_id_and_of_no_trial(tmp_path: Path) -> None:
    wide, narrow = (planned(tmp_path, rates=(3e-4, 1e-3), widen=widen) for widen in (3, 0))
    assert wide.run_id != narrow.run_id
    assert [t.run_id for t in wide.trials] == [t.run_id for t in narrow.trials]
    assert replace(wide.spec, widen=0) == narrow.spec


@pytest.mark.parametrize(("select", "widen"), [(False, 2), (True, -1)])
def test_widen_that_says_nothing_is_refused(select: bool, widen: int) -> None:
    with pytest.raises(UsageError, match="--widen"):
        make_request(methods="full", tasks="digits", select=select, widen=widen)
