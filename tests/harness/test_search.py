"""What a selection of options tries and takes: optuna itself, asked and told by hand, is the oracle."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.harness import search, selection
from bench.harness.outlook import forecast
from bench.harness.plan_text import describe
from bench.harness.planner import Plan, PlannedRun, make_plan
from bench.harness.request import make_request
from bench.records.schema import Record

RANKS = (2, 4, 8, 16)
Point = tuple[float, Any]
Score = Callable[[float, Any], float | str]
"""Learning rate and rank → score, or the state of a trial without one."""


def plan(folder: Path, **changes: Any) -> Plan:
    given: dict[str, Any] = {
        "methods": "lora",
        "tasks": "digits",
        "backbones": "mlp",
        "data": "embedded",
        "out": folder,
        "select": ["lr", "method.rank"],
        "trials": 20,
        "lr": [1e-4, 1e-1],
        "set": {"method.rank": RANKS},
    }
    return make_plan(make_request(**{**given, **changes}))


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., PlannedRun]:
    return lambda **changes: plan(tmp_path, **changes).runs[0]


@pytest.fixture
def ended(make_record: Callable[..., Record]) -> Callable[[PlannedRun, float | str], Record]:
    def record(trial: PlannedRun, result: float | str) -> Record:
        if isinstance(result, str):
            return make_record(state=result, metrics=None, error={"what": "x", "known": "", "todo": ""})
        return make_record(run_id=trial.run_id, metrics={"primary": {"value": result}})

    return record


@pytest.fixture
def play(ended: Callable[..., Record]) -> Callable[..., tuple[list[Point], dict[str, Record]]]:
    """Ends the trials of a run in some order, each when it is open, and returns them in that order."""

    def run_all(run: PlannedRun, score: Score, order: random.Random) -> tuple[list[Point], dict[str, Record]]:
        search._replay.cache_clear()  # as in another process
        tried: dict[str, Record] = {}
        made: list[Point] = []
        while open_trials := selection.open_trials(run, tried):
            trial = order.choice(open_trials)
            assert trial.run_id not in tried
            made.append(point(trial))
            tried[trial.run_id] = ended(trial, score(*made[-1]))
        return made, tried

    return run_all


def point(trial: PlannedRun) -> Point:
    assert trial.spec.lr is not None
    return trial.spec.lr, trial.spec.options.value("method.rank")


def hill(lr: float, rank: Any) -> float | str:
    """The best is 1e-3 with rank 8; above 3e-2 training diverges, and one point runs out of memory."""
    if lr > 3e-2:
        return "diverged"
    return "oom" if rank == 16 and lr < 1e-3 else -abs(math.log10(lr) + 3) - abs(math.log2(rank) - 3)


def asked_of_optuna(count: int, score: Score, generations: list[int]) -> list[Point]:
    """The first suggestions, from optuna's own interface and the values themselves, not their places."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=8, multivariate=True, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    points: list[Point] = []
    for size in generations:
        asked = [
            study.ask({"lr": FloatDistribution(1e-4, 1e-1, log=True), "method.rank": CategoricalDistribution(RANKS)})
            for _ in range(size)
        ]
        for trial in asked:
            points.append((float(f"{trial.params['lr']:.2e}"), trial.params["method.rank"]))
            result = score(*points[-1])
            state = {"diverged": TrialState.PRUNED, "oom": TrialState.FAIL}.get(str(result))
            study.tell(trial, state=state) if state else study.tell(trial, float(result))
    return points[:count]


def test_trials_are_those_of_optuna_and_the_best_is_taken(planned, play, tmp_path: Path) -> None:
    run = planned()
    made, tried = play(run, hill, random.Random(0))
    assert sorted(made) == sorted({*asked_of_optuna(20, hill, [8, 4, 4, 4])})
    chosen, found = selection.choose(run, tried, tmp_path)
    scored = [one for one in made if isinstance(hill(*one), float)]
    assert len(scored) < len(made), "some diverged, some failed"
    best = max(scored, key=lambda one: float(hill(*one)))
    assert (found.chosen, found.options) == (best[0], {"method.rank": best[1]})
    assert (chosen.spec.lr, chosen.spec.options.value("method.rank")) == best
    assert [(trial.lr, trial.options["method.rank"], trial.state) for trial in found.trials] == [
        (*one, "done" if isinstance(result := hill(*one), float) else result)
        for one in asked_of_optuna(20, hill, [8, 4, 4, 4])
    ]
    assert {trial.run_id for trial in found.trials} == {*tried}


def test_the_order_in_which_trials_end_changes_nothing(planned, play) -> None:
    run = planned()
    first = {*play(run, hill, random.Random(0))[0]}
    assert all({*play(run, hill, random.Random(seed))[0]} == first for seed in range(1, 6))


def test_a_generation_waits_for_all_of_the_one_before(planned, ended) -> None:
    run, tried = planned(), {}
    first = selection.open_trials(run, tried)
    assert len(first) == 8 and {t.run_id for t in first} == {t.run_id for t in run.trials}
    for trial in first[:-1]:
        tried[trial.run_id] = ended(trial, 0.5)
    assert [trial.run_id for trial in selection.open_trials(run, tried)] == [first[-1].run_id]
    tried[first[-1].run_id] = ended(first[-1], 0.5)
    assert len(selection.open_trials(run, tried)) == 4


def test_results_decide_what_comes_next(planned, play) -> None:
    run = planned()
    here, there = (play(run, score, random.Random(0))[0] for score in (hill, lambda lr, rank: -hill_free(lr, rank)))
    assert {*here[:8]} == {*there[:8]} and {*here[8:]} != {*there[8:]}


def hill_free(lr: float, rank: Any) -> float:
    return -abs(math.log10(lr) + 3) - abs(math.log2(rank) - 3)


def test_more_trials_begin_with_the_same(planned, play) -> None:
    few, many = (play(planned(trials=trials), hill, random.Random(0))[0] for trials in (14, 30))
    assert {*few} < {*many}


def test_a_lower_loss_is_the_better_one(planned, play, ended, make_record, tmp_path: Path) -> None:
    run = planned()
    _, tried = play(run, hill_free, random.Random(0))
    loss = {
        run_id: make_record(metrics={"primary": {"value": -there.metrics.primary.value, "higher_is_better": False}})
        for run_id, there in tried.items()
    }
    assert selection.open_trials(run, loss) == []
    assert selection.choose(run, loss, tmp_path)[1].chosen == selection.choose(run, tried, tmp_path)[1].chosen


def test_equal_suggestions_are_one_run(planned, play, tmp_path: Path) -> None:
    run = planned(select="method.rank", lr=1e-3, set={"method.rank": [4, 8]}, trials=12)
    made, tried = play(run, hill_free, random.Random(0))
    assert sorted(made) == [(1e-3, 4), (1e-3, 8)]
    chosen, found = selection.choose(run, tried, tmp_path)
    assert (found.chosen, found.options, found.edge) == (1e-3, {"method.rank": 8}, "")
    assert [trial.options["method.rank"] for trial in found.trials] in ([4, 8], [8, 4])
    assert chosen.spec.lr == run.spec.lr == 1e-3


def test_without_a_number_of_trials_every_combination_is_tried(planned, play, tmp_path: Path) -> None:
    run = planned(trials=None, lr=[3e-4, 1e-3, 3e-3], set={"method.rank": [2, 8]})
    made, tried = play(run, hill_free, random.Random(0))
    assert sorted(made) == [(lr, rank) for lr in (3e-4, 1e-3, 3e-3) for rank in (2, 8)]
    found = selection.choose(run, tried, tmp_path)[1]
    assert (found.chosen, found.options) == (1e-3, {"method.rank": 8})
    assert found.warnings == ("method.rank=8 is the largest of the 2 values that were tried",)


def test_rates_are_widened_at_the_best_options_alone(planned, play, tmp_path: Path) -> None:
    run = planned(trials=None, lr=[1e-5, 3e-5], set={"method.rank": [2, 8]})
    made, tried = play(run, hill_free, random.Random(0))
    assert sorted({*made} - {(lr, rank) for lr in (1e-5, 3e-5) for rank in (2, 8)}) == [
        (9e-5, 8),
        (2.7e-4, 8),
        (8.1e-4, 8),
    ]
    found = selection.choose(run, tried, tmp_path)[1]
    assert (found.chosen, found.edge) == (8.1e-4, "largest")


def test_a_trial_is_the_run_that_any_other_selection_would_make(planned) -> None:
    """So a rank that was tried with one space is not tried again with another."""
    wide = planned(trials=None, lr=[1e-3, 3e-3])
    narrow = planned(trials=None, lr=[1e-3, 3e-3], set={"method.rank": [8, 16]})
    shared = {t.run_id for t in wide.trials} & {t.run_id for t in narrow.trials}
    assert len(shared) == 4 and wide.run_id != narrow.run_id


def test_identity_has_candidates_and_number_but_not_order_and_outcome(planned) -> None:
    run = planned()
    assert planned(select=["method.rank", "lr"]).run_id == run.run_id
    two = {"set": {"method.rank": [4, 8], "method.alpha": [8, 16]}}
    here, there = (
        planned(select=["method.rank", "method.alpha"], lr=1e-3, **two),
        planned(select=["method.alpha", "method.rank"], lr=1e-3, **two),
    )
    assert [t.run_id for t in here.trials] == [t.run_id for t in there.trials] and here.run_id == there.run_id
    assert planned(lr=[1e-4, 1e-2, 1e-1]).run_id == run.run_id, "the range is what is searched"
    other = [{"trials": 21}, {"set": {"method.rank": (2, 4)}}, {"lr": [1e-4, 1e-2]}, {"select": "lr", "set": {}}]
    ids = {run.run_id, *(planned(**changes).run_id for changes in other), planned(trials=None).run_id}
    assert len(ids) == len(other) + 2
    spec = run.spec.chosen({"lr": 1e-3, "method.rank": 16}).with_(space=run.spec.space, lr=None)
    assert spec.run_id(run.dataset.hash, run.backbone.weights_hash) == run.run_id


@pytest.mark.parametrize(
    ("method", "seed", "run_id"),
    [("full", 0, "06e84b195e521b26"), ("lora", 3, "669b6fc2a50e0f22"), ("deeplora", 0, "0d6c9b9ea0772692")],
)
def test_a_selection_of_the_rate_alone_has_the_id_it_always_had(planned, method: str, seed: int, run_id: str) -> None:
    changes: Mapping[str, Any] = {"backbones": (), "select": "lr", "trials": None, "lr": (), "set": {}}
    assert planned(methods=method, seeds=seed, **changes).run_id == run_id
    assert planned(methods=method, seeds=seed, **{**changes, "select": True}).run_id == run_id


def test_a_method_without_the_option_selects_the_rest(tmp_path: Path) -> None:
    lora, full = plan(tmp_path, methods=["lora", "full"], trials=None).runs
    assert len(lora.trials) == 8 and [trial.spec.lr for trial in full.trials] == [1e-4, 1e-1]
    plain = plan(tmp_path, methods=["lora", "full"], select="method.rank", lr=1e-3, trials=None).runs[1]
    assert (plain.trials, plain.spec.space, plain.spec.widen) == ((), (), 0)
    given = plan(tmp_path, methods="full", select=(), lr=1e-3, trials=None, set={}).runs[0]
    assert plain.run_id == given.run_id


def test_what_no_run_has_cannot_be_selected(tmp_path: Path) -> None:
    settings = {"allocation.policy": ["uniform", "depth"]}
    with pytest.raises(UsageError, match=r"allocation\.policy=depth: full has no rank to share out"):
        plan(tmp_path, methods="full", select="allocation.policy", lr=1e-3, set=settings)
    lora, full = plan(tmp_path, methods=["lora", "full"], select="allocation.policy", lr=1e-3, set=settings).runs
    assert (lora.spec.space, full.spec.space) == ((("allocation.policy", ("uniform", "depth")),), ())


def test_candidates_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    settings = {"optim.name": ["momentum", "adamw"], "optim.momentum": [0.9, 0.8]}
    with pytest.raises(UsageError, match="no effect with"):
        plan(tmp_path, select=["optim.name", "optim.momentum"], lr=1e-3, set=settings)


def test_no_score_at_all_is_an_error_that_names_what_was_tried(planned, play, tmp_path: Path) -> None:
    run = planned()
    _, tried = play(run, lambda *_: "diverged", random.Random(0))
    with pytest.raises(BenchError, match=r"no trial of the learning rate, method\.rank has a score"):
        selection.choose(run, tried, tmp_path)


def test_optuna_is_needed_for_trials_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="optuna, which is not installed") as problem:
        plan(tmp_path)
    assert "lowrank-bench[select]" in problem.value.todo
    assert plan(tmp_path, trials=None).runs


def test_optuna_says_nothing_and_its_level_is_left_alone(planned, caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    optuna.logging.enable_propagation()
    try:
        search._replay.cache_clear()
        planned()
        assert caplog.records == []
        optuna.create_study()
        assert caplog.records, "what optuna says is seen here"
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(optuna.logging.INFO)


def test_the_dry_run_counts_what_is_to_come(tmp_path: Path) -> None:
    grid = plan(tmp_path, seeds=[0, 1])
    found = forecast(grid)
    assert (len(found.trials), found.to_come, found.to_json()["trials_to_come"]) == (8, 12, 12)
    text = describe(grid, found)
    assert "0.0001–0.1" in text and "8 to train, and 12 that follow from their results" in text
    assert "they choose the learning rate and method.rank of 2, 4, 8, 16" in text
