"""What a dry run says of every run: its state in the folder of records, its size and its time, against real runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

import bench
from bench.cli import main
from bench.core.errors import EnvironmentProblem
from bench.harness.measure import count
from bench.harness.outlook import Measured, Outlook, forecast, kind
from bench.harness.plan_text import WIDTH, describe
from bench.harness.planner import Plan
from bench.records import claims, index, record
from bench.records.schema import RunError

SMALL: dict[str, Any] = {"backbones": "mlp", "max_steps": 4, "batch_size": 8}
WORDS = ("--task", "digits", "--backbone", "mlp", "--max-steps", "4", "--batch-size", "8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of lora with rank 2, of seeds 0 and 1."""
    out = tmp_path_factory.mktemp("outlook") / "runs"
    made = bench.run("lora", "digits", seeds=[0, 1], set={"method.rank": 2}, out=out, **SMALL)
    assert len(made.done) == 2
    return out


@pytest.fixture
def runs(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(folder, tmp_path / "runs")
    return tmp_path / "runs"


def grid(out: Path, **more: Any) -> Plan:
    given: dict[str, Any] = {**SMALL, "seeds": [0, 1, 2], "set": {"method.rank": [2, 4]}, "out": out, **more}
    return bench.plan(["lora", "linear"], "digits", **given)


def named(plan: Plan, measured: Any = None) -> dict[tuple[Any, ...], Outlook]:
    found = forecast(plan, measured).runs
    return {(one.run.spec.method, one.run.given.get(("method", "rank")), one.run.spec.seed): one for one in found}


def change(runs: Path, seed: int, **changes: Any) -> Path:
    """Write the record of one of the two runs with changes; return its folder."""
    [one] = [made for made in record.load_all(runs)[0] if made.spec.seed == seed]
    record.write(structs.replace(one, **changes), record.folder(runs, one.run_id))
    return record.folder(runs, one.run_id)


UNFINISHED: dict[str, Any] = {"metrics": None, "params": None, "cost": None, "ranks": (), "curve": (), "files": {}}


def test_sizes_and_times_are_those_of_finished_siblings(folder: Path) -> None:
    found, made = named(grid(folder)), record.load_all(folder)[0]
    mean = sum(one.cost.train_s + one.cost.eval_s for one in made if one.cost) / 2
    assert [(found["lora", "2", seed].state, found["lora", "2", seed].left_alone) for seed in (0, 1, 2)] == [
        ("done", True),
        ("done", True),
        ("new", False),
    ]
    sibling = found["lora", "2", 2]
    assert made[0].params and sibling.trainable == made[0].params.trainable
    assert sibling.seconds == pytest.approx(mean)
    assert found["lora", "2", 0].seconds == 0, "nothing of it is left"
    other = found["lora", "4", 0]
    assert (other.trainable, other.seconds) == (None, pytest.approx(mean)), "another rank takes about as long"
    head = found["linear", None, 0]
    assert (head.trainable, head.seconds, head.steps) == (None, None, 4)
    rate = named(grid(folder, lr=[0.5]))["lora", "2", 0]
    assert (rate.state, rate.trainable, rate.seconds) == ("new", sibling.trainable, pytest.approx(mean))
    longer = named(grid(folder, max_steps=5))["lora", "2", 0]
    assert (longer.trainable, longer.seconds) == (sibling.trainable, None), "its time is not that of four steps"


def test_a_large_folder_is_read_from_its_index(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = named(grid(runs))
    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(index, "SETTLED_NS", -(10**9))
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(runs.parent / "cache"))
    said = {name: (one.trainable, one.seconds) for name, one in plain.items()}
    assert len({*said.values()}) > 3, "several sizes and times are known"
    assert {name: (one.trainable, one.seconds) for name, one in named(grid(runs)).items()} == said
    for module, name in ((index, "read"), (record, "iterate")):
        monkeypatch.setattr(module, name, lambda path: pytest.fail(f"{path} is read again"))
    assert {name: (one.trainable, one.seconds) for name, one in named(grid(runs)).items()} == said


def test_totals_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--method", "lora,linear", *WORDS, "--seeds", "0,1,2", "--set", "method.rank=2,4", "--out", str(folder))
    assert main(["run", *words, "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    plan = grid(folder)
    looked = forecast(plan, count(forecast(plan), print))
    assert shown["total"] == {
        "runs": 9,
        "done": 2,
        "left_alone": 2,
        "trials": 0,
        "trials_left": 0,
        "trials_to_come": 0,
        "estimated_s": None,
        "unknown": 3,
    }
    assert [run["run_id"] for run in shown["runs"]] == [run.run_id for run in plan.runs]
    assert [(run["state"], run["trainable"]) for run in shown["runs"]] == [(o.state, o.trainable) for o in looked.runs]
    assert shown["runs"][0]["given"] == {"method.rank": "2"}
    assert looked.seconds == pytest.approx(sum(one.seconds or 0 for one in looked.runs))


def test_a_run_that_failed_is_left_alone_unless_it_is_retried(runs: Path) -> None:
    error = RunError(what="it went wrong", known="", todo="")
    change(runs, 1, state="failed", error=error, **UNFINISHED)
    failed, again = (named(grid(runs, retry=retry))["lora", "2", 1] for retry in (False, True))
    assert (failed.state, failed.left_alone, failed.why, failed.seconds) == ("failed", True, "it went wrong", 0)
    assert not again.left_alone and again.seconds
    plan = grid(runs)
    text = describe(plan, forecast(plan))
    assert f"{failed.run.run_id} failed: it went wrong" in text
    assert "1 done, 1 failed, 7 to train" in text and text.endswith("--retry trains again what failed")


def test_an_interrupted_run_has_the_rest_of_its_steps_to_go(runs: Path) -> None:
    import torch

    where = change(runs, 1, state="cancelled", **UNFINISHED)
    assert named(grid(runs))["lora", "2", 1].state == "interrupted"
    torch.save({"global_step": 3}, where / "checkpoint-1x1.ckpt")
    one, new = (named(grid(runs))["lora", "2", seed] for seed in (1, 2))
    assert (one.state, one.left_alone) == ("interrupted at 3", False)
    assert one.seconds and new.seconds and one.seconds == pytest.approx(new.seconds / 4)
    (where / "checkpoint-1x1.ckpt").write_bytes(b"damaged")
    assert named(grid(runs))["lora", "2", 1].state == "interrupted"


def test_a_run_that_a_process_trains_now_is_named_with_its_host(runs: Path) -> None:
    where = change(runs, 1, state="running", **UNFINISHED)
    with claims.Claims().take(where) or pytest.fail("free"):
        one = named(grid(runs))["lora", "2", 1]
        assert one.state == f"on {os.uname().nodename}" and one.left_alone
        assert str(os.getpid()) in one.why
        held = claims.read(where)
    assert held
    (where / claims.FILE).write_bytes(msgspec.json.encode(structs.replace(held, born="0")))
    assert named(grid(runs))["lora", "2", 1].state == "interrupted", "its process is gone"


def test_a_broken_record_is_trained_anew_and_one_of_another_version_ends_the_command(runs: Path) -> None:
    where = change(runs, 1)
    text = (where / record.FILE).read_text()
    (where / record.FILE).write_text(text[:100])
    one = named(grid(runs))["lora", "2", 1]
    assert (one.state, one.left_alone) == ("broken", False) and "set aside" in one.why
    (where / record.FILE).write_text(text.replace('"schema": ', '"schema": 9'))
    with pytest.raises(EnvironmentProblem, match="schema version"):
        forecast(grid(runs))


def test_trials_are_listed_and_counted(tmp_path: Path) -> None:
    plan = grid(tmp_path, select=("lr",))
    looked = forecast(plan)
    assert (len(looked.runs), len(looked.trials), looked.unknown) == (9, 9, 18)
    text = describe(plan, looked)
    assert "of 3" in text and "first 9 trials on a split held out from train, 9 to train, and more" in text
    measured = {kind(one.run): Measured(trainable=7, seconds=10.0) for one in (*looked.runs, *looked.trials)}
    timed = forecast(plan, measured)
    assert (timed.seconds, timed.unknown) == (180, 0)
    assert "about 3 min" in describe(plan, timed) and "unknown" not in describe(plan, timed)


def test_the_table_fits_and_shows_the_options_that_differ(tmp_path: Path) -> None:
    table = tmp_path / "a table whose name is much longer than any column should be.csv"
    table.write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(40)))
    plan = bench.plan(
        ["lora", "linear"],
        f"table:{table}",
        seeds=[2**32 - 1],
        out=tmp_path / "runs",
        set={"method.rank": [2, 4], "method.target": ["qv", "x" * 80], "head.dropout": [0, 0.5], "optim.clip": 0},
    )
    text = describe(plan, forecast(plan))
    rows = [line for line in text.splitlines() if line.startswith("  ")]
    assert len(rows) == 1 + len(plan.runs) == 1 + 8 + 2
    assert max(map(len, rows)) <= WIDTH
    assert all(run.run_id in text for run in plan.runs)
    assert "rank=2" in text and "clip" not in text
    both = {"backbone.dropout": [0, 0.5], "head.dropout": [0, 0.5]}
    plan = bench.plan("linear", "digits", backbones="mlp", out=tmp_path / "runs", set=both)
    assert "backbone.dropout=0.5 head.dropout=0" in describe(plan, forecast(plan))


def test_a_measurement_counts_what_a_run_trains_and_scales_with_its_steps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.harness import measure

    ticks = iter(range(10**6))
    monkeypatch.setattr(measure, "_now", lambda: float(next(ticks)))
    plan = grid(tmp_path, seeds=[0], max_steps=40)
    lines: list[str] = []
    measured = measure.measure(forecast(plan), lines.append)
    assert lines == [
        "measuring 1/3: lora digits method.rank=2",
        "measuring 2/3: linear digits",
        "measuring 3/3: lora digits method.rank=4",
    ]
    assert not [*tmp_path.iterdir()], "no record is written"
    found = named(plan, measured)
    finished = record.load_all(folder)[0][0]
    assert finished.params and found["lora", "2", 0].trainable == finished.params.trainable
    batches = 6  # 360 examples of dev, 64 a batch; four of them take one tick
    assert {one.seconds for one in found.values()} == {40 * 1.0 + batches * 1 / 4}
    assert measure.measure(forecast(grid(folder, seeds=[0, 2], set={"method.rank": 2})), lines.append).keys() == {
        kind(run) for run in grid(folder).runs if run.spec.method == "linear"
    }, "what finished runs say is not measured"


def test_a_run_that_cannot_train_is_said_by_its_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--method", "lora", *WORDS, "--set", "method.target=all,nothing_like_it", "--out", str(tmp_path / "runs"))
    assert main(["run", *words, "--dry-run", "--measure"]) == 0
    out, err = capsys.readouterr()
    assert "new: cannot train: " in out and "nothing_like_it" in out
    assert "1 to train, 1 that cannot train · about" in out and "measuring 2/2" in err


def test_measured_without_a_dry_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--method", "lora", *WORDS, "--measure"]) == 2
    assert "--measure without --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "text"), [(38.4, "38 s"), (99.6, "2 min"), (720, "12 min"), (12_240, "3.4 h")])
def test_times_are_rounded(seconds: float, text: str, tmp_path: Path) -> None:
    plan = grid(tmp_path, seeds=[0], set={"method.rank": 2})
    measured = {kind(run): Measured(trainable=1, seconds=seconds / len(plan.runs)) for run in plan.runs}
    assert f"about {text} one after the other" in describe(plan, forecast(plan, measured))
