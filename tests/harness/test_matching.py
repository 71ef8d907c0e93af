"""`--match-params`: the rank that closed forms give, the run that it makes by hand, and what cannot be matched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.core.errors import BenchError, UsageError
from bench.harness.matching import largest_within
from bench.harness.plan_file import read, write
from bench.harness.planner import Plan, make_plan
from bench.harness.repeat import repeat_command
from bench.harness.request import Request, make_request

WIDTH, LAYERS = 16, 2
"""An MLP 16 → 16 → 16 → head: two square layers."""
LORA = LAYERS * 8 * 2 * WIDTH


def request(tmp_path: Path, *methods: str, to: str = "lora", **more: Any) -> Request:
    options = {"backbone.width": WIDTH, "backbone.depth": LAYERS + 1, "task.size": WIDTH, **more.pop("set", {})}
    place: dict[str, Any] = {"backbones": "mlp", "out": tmp_path, "bench_data": "none"}
    return make_request(
        methods=methods, tasks="synthetic/regression", match_params=to, set=options, **{**place, **more}
    )


def plan(tmp_path: Path, *methods: str, **more: Any) -> Plan:
    return make_plan(request(tmp_path, *methods, **more))


def deep(width: int) -> int:
    return LAYERS * (2 * WIDTH * width + width**2)


def compressed(rank: int) -> int:
    return LAYERS * (2 * WIDTH * rank + 3 * rank**2)


@pytest.mark.parametrize(
    ("method", "options", "option", "trains"),
    [
        ("deeplora", {}, "method.rank", deep),
        ("deeplora", {"method.form": "compressed"}, "method.rank", compressed),
        ("adalora", {}, "method.rank", lambda r: LAYERS * -(-3 * r // 2) * (2 * WIDTH + 1)),
        ("lora", {"method.dora": True}, "method.rank", lambda r: LAYERS * (2 * WIDTH * r + WIDTH)),
    ],
)
def test_the_value_is_the_largest_within_the_budget(
    tmp_path: Path, method: str, options: dict[str, Any], option: str, trains: Callable[[int], int]
) -> None:
    """Closed forms; DoRA against LoRA of the same name is matched by way of adalora."""
    if method == "lora":
        [run] = plan(tmp_path, "lora", to="adalora", set=options).runs
        budget = LAYERS * 12 * (2 * WIDTH + 1)
    else:
        [_, run] = plan(tmp_path, "lora", method, set=options).runs
        budget = LORA
    assert run.match
    step = 2 if options.get("method.form") == "compressed" else 1
    value = max(r for r in range(step, 64, step) if trains(r) <= budget)
    assert (run.match.option, run.match.value, run.match.trained) == (option, value, trains(value))
    assert run.match.budget == budget
    assert run.spec.options.value(option) == value


def test_adapters_match_by_their_width(tmp_path: Path) -> None:
    settings = {"backbone.width": 24, "backbone.depth": 2}
    [_, run] = make_plan(
        make_request(
            methods=["lora", "adapter"],
            tasks="digits",
            backbones="vit",
            match_params="lora",
            set=settings,
            out=tmp_path,
            bench_data="none",
        )
    ).runs
    assert run.match and run.match.option == "method.bottleneck"
    assert run.match.trained == 2 * (2 * 24 * run.match.value + run.match.value + 24) <= run.match.budget
    assert run.match.budget == 2 * 2 * 8 * (24 + 24)


def test_it_is_the_run_that_the_value_by_hand_makes(tmp_path: Path) -> None:
    grid = request(tmp_path, "lora", "deeplora")
    [_, run] = make_plan(grid).runs
    assert run.match and run.match.value == 6 and run.match.line().endswith("56 (10.9 %) left over")
    [by_hand] = make_plan(
        request(tmp_path, "deeplora", to=None, set={"method.rank": 6})  # pyright: ignore - no method to match
    ).runs
    assert by_hand.run_id == run.run_id and by_hand.match is None
    command = repeat_command(run, grid)
    assert "--match-params" not in command and "method.rank=6" in command
    assert run.to_json()["match"] == {
        "method": "deeplora",
        "to": "lora",
        "option": "method.rank",
        "value": 6,
        "trained": deep(6),
        "budget": LORA,
    }


def test_options_of_the_method_that_is_matched_count_also_where_it_does_not_run(tmp_path: Path) -> None:
    [run] = plan(tmp_path, "deeplora", set={"method.rank": 4}).runs
    assert run.match and (run.match.budget, run.match.value) == (LORA // 2, 3)
    runs = plan(tmp_path, "lora", "deeplora", set={"method.rank": [4, 8]}).runs
    ranks = [(run.spec.method, run.spec.options.value("method.rank")) for run in runs]
    assert ranks == [("lora", 4), ("deeplora", 3), ("lora", 8), ("deeplora", 6)]


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("full", {}, "full has no option that scales its parameters"),
        (
            "adalora",
            {"method.init_rank": 6, "method.rank": 6, "method.dora": True},
            "method.rank does not raise what adalora trains",
        ),
        ("lowrank", {"backbone.width": 64, "method.rank": 1}, "lowrank cannot train as few parameters"),
    ],
)
def test_what_cannot_be_matched_is_left_out_with_the_reason(
    tmp_path: Path, method: str, options: dict[str, Any], reason: str
) -> None:
    found = plan(tmp_path, "lora", method, set=options)
    assert [run.spec.method for run in found.runs] == ["lora"]
    assert [skip.name for skip in found.skipped] == [f"{method} × synthetic/regression"]
    assert reason in found.skipped[0].error.what and found.skipped[0].error.todo
    with pytest.raises(BenchError, match="--match-params"):
        plan(tmp_path, method, set=options)


def test_what_is_matched_is_not_selected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--select method\.rank with --match-params lora"):
        plan(tmp_path, "lora", "deeplora", select="method.rank", set={"method.rank": [2, 4]})
    with pytest.raises(UsageError, match="unknown method 'lra'"):
        request(tmp_path, "deeplora", to="lra")


def test_a_plan_file_keeps_it(tmp_path: Path) -> None:
    made = request(tmp_path, "lora", "deeplora")
    (tmp_path / "grid.yaml").write_text(write(made))
    assert read(tmp_path / "grid.yaml").match_params == "lora"


def test_a_dry_run_says_what_is_left_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--method", "lora,deeplora", "--task", "synthetic/regression", "--backbone", "mlp", "--dry-run"]
    small = ["--set", "backbone.width=16", "--set", "backbone.depth=3", "--set", "task.size=16", "--out", str(tmp_path)]
    assert main([*words, *small, "--match-params", "lora"]) == 0
    line = "deeplora: method.rank=6 trains 456 parameters beside the head, lora 512: 56 (10.9 %) left over"
    assert line in capsys.readouterr().out.splitlines()
    assert main([*words, *small, "--match-params", "lora", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][1]["match"]["value"] == 6


@pytest.mark.parametrize(
    "count", [lambda i: 7 + 5 * i, lambda i: 7 + i * i, lambda i: 7 + 3 * (i // 2) + i, lambda i: 6 + 2**i]
)
def test_the_search_finds_the_last_place(count: Callable[[int], int]) -> None:
    most = 300
    for budget in (*range(7, 60), 999, 1000, 12345):
        asked: list[int] = []

        def counted(place: int, asked: list[int] = asked) -> int | None:
            asked.append(place)
            return count(place) if place <= most else None

        want = max(place for place in range(most + 1) if count(place) <= budget)
        assert largest_within(budget, counted) == (want, count(want))
        assert len(asked) < 20


def test_a_linear_count_needs_few_networks() -> None:
    asked: list[int] = []
    largest_within(98_304, lambda place: asked.append(place) or 6144 * (place + 1))
    assert len(asked) <= 4
