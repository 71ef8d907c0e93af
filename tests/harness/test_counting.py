"""The trained parameters that a dry run counts on networks that it builds, against those of real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.core.errors import DataProblem
from bench.harness import measure
from bench.harness.outlook import forecast
from bench.records import record
from bench.training import counting
from tasks.text import datamodule

SMALL: dict[str, Any] = {"backbones": "mlp", "max_steps": 2, "batch_size": 8}
IMAGES = ("--task", "digits", "--backbone", "vit", "--max-steps", "2", "--batch-size", "8", "--train-samples", "16")
TEXTS = ("--task", "glue/cola", "--data", "embedded", "--max-steps", "2", "--batch-size", "8", "--train-samples", "16")
NETWORK = ("--set", "backbone.heads=2", "--set", "backbone.width=16", "--set", "backbone.depth=2")


def dry(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    """The runs that a dry run shows, by id."""
    assert main(["run", *words, "--dry-run", "--json"]) == 0
    return {run["run_id"]: run for run in json.loads(capsys.readouterr().out)["runs"]}


def trained(out: Path, *words: str) -> dict[str, int]:
    """What the records of the same command count, by id."""
    assert main(["run", *words]) == 0
    return {made.run_id: made.params.trainable for made in record.load_all(out)[0] if made.params}


@pytest.mark.parametrize(
    ("methods", "options"),
    [
        ("full,linear,bitfit,lora,deeplora,adapter,adalora,lowrank,galore,mae", ("method.rank=4",)),
        ("lora", ("method.init=pissa", "method.dora=true")),
        ("deeplora", ("method.form=compressed", "method.gamma=0,0.01")),
        ("lora", ("allocation.policy=depth", "head.trainable=false")),
        ("adapterdrop", ("method.n=none,1",)),
        ("peft:vera", ()),
    ],
    ids=["methods", "pissa", "compressed", "depth", "adapterdrop", "peft"],
)
def test_the_count_is_that_of_the_record(
    methods: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if methods == "peft:vera":
        pytest.importorskip("peft")
    more = tuple(word for option in options for word in ("--set", option))
    words = ("--method", methods, *IMAGES, *NETWORK, *more, "--out", str(tmp_path))
    shown = dry(capsys, *words)
    assert not [*tmp_path.iterdir()], "no record is written"
    counts = {run_id: run["trainable"] for run_id, run in shown.items()}
    assert counts == trained(tmp_path, *words)
    assert len({*counts.values()}) > 1 or len(counts) == 1, "methods differ"


def test_a_text_network_is_counted_on_one_batch(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--method", "lora,adalora,mlm", *TEXTS, "--backbone", str(tiny_bert), "--out", str(tmp_path))
    sizes: list[int] = []
    tokenise = datamodule.tokenise

    def noted(rows: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(rows))
        return tokenise(rows, *rest, **options)

    monkeypatch.setattr(datamodule, "tokenise", noted)
    shown = dry(capsys, *words)
    assert {*sizes} == {8}, "not the whole of train, and no dev"
    assert {run_id: run["trainable"] for run_id, run in shown.items()} == trained(tmp_path, *words)


def test_ranks_that_follow_from_the_first_batch_are_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--method", "lora", *IMAGES, *NETWORK, "--set", "allocation.policy=gradient", "--out", str(tmp_path))
    [run] = dry(capsys, *words).values()
    assert (run["trainable"], run["cannot_train"]) == (None, False)
    one = trained(tmp_path, *words)
    assert one.keys() == {run["run_id"]}
    capsys.readouterr()
    both = dry(capsys, *words, "--seeds", "0,1")
    assert [both.pop(run["run_id"])["trainable"]] == [*one.values()]
    assert [other["trainable"] for other in both.values()] == [None], "another seed draws another batch"


def test_what_cannot_train_is_said_as_its_record_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--method", "lora,bitfit", *IMAGES, *NETWORK, "--set", "method.target=all,nothing_like_it")
    words = (*words, "--out", str(tmp_path))
    assert main(["run", *words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "2 to train, 2 that cannot train · 2 of unknown time" in text
    shown = dry(capsys, *words)
    assert main(["run", *words]) == 1
    made = record.load_all(tmp_path)[0]
    failed = {one.run_id: one.error.what for one in made if one.error}
    assert len(failed) == 2
    assert failed.keys() == {run_id for run_id, run in shown.items() if run["cannot_train"]}
    for run_id, what in failed.items():
        assert f"{run_id} new: cannot train: {what}" in text
        assert shown[run_id]["why"].startswith(f"cannot train: {what}")
        assert shown[run_id]["estimated_s"] == 0


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        (DataProblem("the tokenizer does not know these texts"), ""),
        (MemoryError(), ""),
        (RuntimeError("boom\nmore"), "cannot train: RuntimeError: boom"),
    ],
    ids=["few examples", "memory", "defect"],
)
def test_only_what_the_run_would_meet_too_counts_as_a_misfit(
    problem: Exception, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any) -> Any:
        raise problem

    monkeypatch.setattr(counting, "build", build)
    plan = bench.plan("lora", "digits", out=tmp_path, **SMALL)
    [one] = forecast(plan, measure.count(forecast(plan), print)).runs
    assert (one.trainable, one.why, one.cannot_train) == (None, why, bool(why))


def test_each_kind_is_built_once_and_the_progress_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SILENT_S", -1)
    plan = bench.plan("lora", "digits", out=tmp_path, seeds=[0, 1], lr=[1, 2], set={"method.rank": [2, 4]}, **SMALL)
    lines: list[str] = []
    counted = measure.count(forecast(plan), lines.append)
    assert lines == [
        "counting parameters 1/2: lora digits method.rank=2",
        "counting parameters 2/2: lora digits method.rank=4",
    ]
    found = forecast(plan, counted)
    assert len(found.runs) == 8 and not found.sizes_unknown
    assert measure.count(found, lines.append) == {}, "what is known is not built"


def test_counting_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "COUNTING_S", -1)
    plan = bench.plan("lora", "digits", out=tmp_path, set={"method.rank": [2, 4]}, **SMALL)
    lines: list[str] = []
    assert measure.count(forecast(plan), lines.append) == {}
    assert lines == ["counted 0 of 2 kinds of runs in 0 s; 2 stay unknown"]
