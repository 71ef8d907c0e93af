"""The recommended row, the rank that it needs, and what would settle what is open."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from scipy import stats

from bench.records.record import Record
from leaderboard.recommend import text
from leaderboard.recommend.commands import commands
from leaderboard.recommend.recommendation import Recommendation, recommend
from leaderboard.recommend.settling import MOST_SEEDS, settling
from leaderboard.tables.intervals import Noise, Paired

Board = Callable[..., list[Record]]
SIZES = {"full": 20_000_000, "lora": 68_000, "bitfit": 30_000, "linear": 770}


@pytest.fixture
def board(run: Callable[..., Record]) -> Board:
    """`board(full=[.9, .91, .92], lora=[…])`: runs of a task, a score for each seed."""

    def make(task: str = "rte", **scores: list[float]) -> list[Record]:
        return [
            run(
                method,
                task,
                seed,
                value,
                params={"trainable": SIZES[method]},
                spec={"options": {"method": {"rank": 8} if method == "lora" else {}}},
                ranks=[] if method in ("linear", "bitfit") else RANKS,
                provenance={"command": command(method, task, seed)},
            )
            for method, values in scores.items()
            for seed, value in enumerate(values)
        ]

    return make


RANKS = [
    {"layer": f"l{i}", "shape": [384, 384], "nominal": 8, "how": "factors"}
    | {"stable": 1.5, "effective": 2.0, "energy90": 2, "norm": 0.7}
    for i in range(2)
]


def command(method: str, task: str, seed: int, *more: str) -> list[str]:
    argv = ["bench", "run", "--method", method, "--task", f"glue/{task}", "--backbone", "minilm", "--seeds", str(seed)]
    return [*argv, "--max-steps", "150", "--lr", "0.001", *more]


def only(records: list[Record], **options: Any) -> Recommendation:
    [found] = recommend(records, **options)
    return found


def standings(found: Recommendation) -> dict[str, str]:
    return {one.row.label: one.standing for one in found.candidates}


def test_the_smallest_within_noise_and_margin(board: Board) -> None:
    records = board(
        full=[0.80, 0.82, 0.84], lora=[0.795, 0.816, 0.839], bitfit=[0.70, 0.73, 0.73], linear=[0.5, 0.51, 0.52]
    )
    found = only(records)
    assert found.chosen and found.chosen.row.label == "lora" and found.best and found.best.row.label == "full"
    assert standings(found) == {"full": "best", "lora": "equal", "bitfit": "worse", "linear": "worse"}
    assert [one.row.label for one in found.candidates] == ["full", "lora", "bitfit", "linear"]
    assert found.next_smaller and found.next_smaller.row.label == "bitfit"

    differences = np.array([0.795, 0.816, 0.839]) - np.array([0.70, 0.73, 0.73])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    assert found.next_smaller.loss == pytest.approx(differences.mean())
    assert (found.next_smaller.loss_low, found.next_smaller.loss_high) == pytest.approx((low, high))


def test_within_noise_alone_is_not_enough(board: Board) -> None:
    """A row that varies so much that a loss of .05 is within noise is unclear, unless the margin allows that loss."""
    records = board(full=[0.80, 0.82, 0.84], lora=[0.72, 0.83, 0.76])
    found = only(records)
    assert found.chosen and found.chosen.row.label == "full"
    assert standings(found)["lora"] == "equal" and [one.row.label for one in found.unclear] == ["lora"]
    wide = only(records, margin=0.06)
    assert wide.chosen and wide.chosen.row.label == "lora"


def test_lower_is_better(board: Board) -> None:
    higher = board(full=[0.80, 0.82, 0.84], lora=[0.6, 0.61, 0.62], linear=[0.2, 0.21, 0.22])
    lower = [
        structs.replace(
            one,
            metrics=structs.replace(one.metrics, primary=structs.replace(one.metrics.primary, higher_is_better=False)),
        )
        for one in higher
        if one.metrics
    ]
    up, down = only(higher), only(lower)
    assert up.best and down.best and (up.best.row.label, down.best.row.label) == ("full", "linear")
    losses = {one.row.label: one.loss for one in down.candidates}
    assert losses["full"] == pytest.approx(0.61) and losses["lora"] == pytest.approx(0.40)
    for one in down.candidates:
        if one.loss is not None and one.loss_low is not None and one.loss_high is not None:
            assert one.loss_low <= one.loss <= one.loss_high


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ({"full": [0.8, 0.9], "lora": [0.8, 0.9]}, "a method counts with 3 seeds or more, and 2 are the most"),
        ({"full": [0.8], "lora": [0.8]}, "a method counts with 3 seeds or more, and 1 is the most"),
        ({"full": [0.8, 0.82, 0.81]}, "there is but one method"),
    ],
)
def test_no_recommendation(board: Board, scores: dict[str, list[float]], why: str) -> None:
    found = only(board(**scores))
    assert found.chosen is None and why in found.why_none
    assert f"No recommendation: {found.why_none}." in text.render(found, Path("runs"))
    following = commands(found, Path("runs"))
    if "seeds" in why:  # the command that would allow one
        assert [one[one.index("--seeds") + 1] for one in following] == ["0,1,2"]
        assert [one[one.index("--method") + 1] for one in following] == ["full,lora"]
    else:
        assert not following


def test_nothing_is_recommended_at_chance(board: Board) -> None:
    found = only(board("cola", full=[0.02, -0.01, 0.0], lora=[0.0, 0.0, 0.01]))
    assert found.chosen is None and found.why_none == "no method is above the score of ignoring the input"


def test_a_row_with_few_seeds_is_unclear(board: Board) -> None:
    found = only(board(full=[0.80, 0.82, 0.84], lora=[0.795, 0.816, 0.839], linear=[0.82]))
    assert found.chosen and found.chosen.row.label == "lora"
    assert [(one.row.label, one.standing) for one in found.unclear] == [("linear", "few")]
    assert "Unclear: linear, which is smaller, has too few seeds" in text.render(found, Path("runs"))


def test_of_several_tasks_first_the_average(board: Board) -> None:
    records = [
        *board("rte", full=[0.80, 0.82, 0.84], lora=[0.5, 0.52, 0.51]),
        *board("mrpc", full=[0.80, 0.82, 0.84], lora=[0.798, 0.822, 0.839]),
    ]
    suite, mrpc, rte = recommend(records)
    assert [len(one.columns) for one in (suite, mrpc, rte)] == [2, 1, 1]
    chosen = [one.chosen.row.label if one.chosen else None for one in (suite, mrpc, rte)]
    assert chosen == ["full", "lora", "full"]


def cut(needed: int | None) -> dict[str, Any]:
    tried = [0, 1, 2, 4, 8]
    points = [{"k": k, "value": 0.41 if needed is not None and k >= needed else 0.1} for k in tried]
    points[-1]["value"] = 0.41
    return {"split": "dev", "n": 200, "whole": 0.41, "se": 0.03, "points": points, "rank_needed": needed}


@pytest.mark.parametrize(
    ("needed", "says"),
    [
        ([1, 2, 4], "Use lora at rank 2."),
        ([2, 2, 2], "Rank: 2 of the 8 directions"),
        ([8, 8, 8], "its update needs all of its 8 directions: a larger rank"),
        ([0, 0, 0], "its score stays without the update: the head alone may do"),
    ],
)
def test_the_rank_it_needs(make_record: Callable[..., Record], needed: list[int], says: str) -> None:
    def runs(method: str, trainable: int, values: list[float], **more: Any) -> list[Record]:
        metrics = {"primary": {"name": "accuracy"}}
        return [
            make_record(
                spec={"method": method, "seed": seed, "options": {"method": {"rank": 8} if method == "lora" else {}}},
                metrics={"primary": metrics["primary"] | {"value": value}},
                params={"trainable": trainable, "head": 770},
                provenance={"command": command(method, "cola", seed, "--set", "method.rank=8")},
                **{name: given[seed] if name == "truncation" else given for name, given in more.items()},
            )
            for seed, value in enumerate(values)
        ]

    factors = 2 * 8 * (384 + 384)
    records = [
        *runs("full", 22_000_000, [0.80, 0.82, 0.84], ranks=[]),
        *runs("lora", factors + 770, [0.795, 0.816, 0.839], ranks=RANKS, truncation=[cut(k) for k in needed]),
    ]
    found = only(records)
    assert says in text.render(found, Path("runs"))
    assert found.rank and found.rank.needed is not None and found.rank.needed == sorted(needed)[1]
    assert found.rank.parameters == 2 * found.rank.needed * (384 + 384) + 770  # r·(m + n) on each layer, and the head
    again = [one for one in commands(found, Path("runs")) if f"method.rank={found.rank.smaller}" in one]
    if found.rank.smaller:
        [one] = again
        assert one.count("--set") == 1 and one[one.index("--seeds") + 1] == "0,1,2"
    else:
        assert not again


@pytest.mark.parametrize("width", [0.005, 0.02, 0.05])
def test_seeds_that_settle(width: float) -> None:
    """Without examples: the fewest seeds n with t(n − 1)·s/√n within the width, by scipy."""
    values = np.array([[0.01], [0.03], [-0.02], [0.04]])
    s = float(values.std(ddof=1))
    fits = [n for n in range(4, MOST_SEEDS + 1) if stats.t.ppf(0.975, n - 1) * s / math.sqrt(n) <= width]
    found = settling(Paired(values, None, 0), width)
    assert found.seeds == (fits[0] if fits else None) and found.examples is None


def test_examples_that_settle_what_seeds_do_not() -> None:
    """Seeds that agree on every example: their number changes nothing, and the variance falls with the examples."""
    values, variance, n = np.array([[0.02], [0.02], [0.02]]), 0.02**2, 350
    found = settling(Paired(values, Noise(of_mean=variance, of_one=variance), n), 0.02)
    assert found.seeds is None
    quantile = stats.t.ppf(0.975, 200)
    assert found.examples == pytest.approx(n * quantile**2 * variance / 0.02**2, rel=0.01)


def test_settling_agrees_with_experiments_of_that_size() -> None:
    """As many seeds as it says give an interval of that half-width, on average, where scores are normal."""
    draw = np.random.default_rng(0)
    sample = draw.normal(0, 0.02, 5)
    sample *= 0.02 / sample.std(ddof=1)
    seeds = settling(Paired(sample[:, None], None, 0), 0.012).seeds
    assert seeds
    trials = draw.normal(0, 0.02, (2000, seeds))
    halves = stats.t.ppf(0.975, seeds - 1) * trials.std(axis=1, ddof=1) / math.sqrt(seeds)
    assert float(halves.mean()) == pytest.approx(0.012, rel=0.06)
