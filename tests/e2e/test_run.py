"""`bench run` on a directory, from the words to the table: what is trained, recorded, skipped and printed."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, matthews_corrcoef

Bench = Callable[..., Any]
METHODS = ("full", "linear", "lora", "deeplora")
FOUR = ("--method", ",".join(METHODS), "--task", "glue/cola,glue/rte", "--set", "method.rank=4")
WIDTH, LAYERS = 32, 4
"""Width of the tiny backbone, and its query and value layers."""


def test_four_methods_on_two_tasks(
    bench: Bench, command: Any, fitted: list[Any], files: Any, tiny_bert: Path, tmp_path: Path
) -> None:
    first = bench(*FOUR)
    assert first.code == 0
    assert first.states() == {(m, f"glue/{t}"): "done" for m in METHODS for t in ("cola", "rte")}
    assert all(method in first.out for method in METHODS)
    assert "directory" in first.out
    assert "8 done, 0 failed" in first.err
    assert len(fitted) == 8
    _check_parameters(first, tiny_bert)
    _check_measured(first)

    before = files(tmp_path / "runs")
    again = bench(*FOUR)
    assert (again.code, again.out) == (0, first.out)
    assert files(tmp_path / "runs") == before
    assert len(fitted) == 8, "nothing is trained twice"

    words = ("--runs", str(tmp_path / "runs"))
    shown = command("leaderboard", "--runs", str(tmp_path / "runs"), folder=tmp_path).out
    assert _scores(shown) == _scores(first.out) != []
    assert shown.splitlines()[0] == first.out.strip().splitlines()[0]
    assert command("list", "runs", *words, folder=tmp_path).out.count("done") == 8
    assert "glue/" in command("show", first.records[0].run_id[:8], *words, folder=tmp_path).out


def _scores(text: str) -> list[list[str]]:
    """Method, scores and average of each row of the first table."""
    lines = [line for line in text.splitlines() if line.startswith("|")][: 2 + len(METHODS)]
    return [[cell.strip(" -:") for cell in line.split("|")[1:5]] for line in lines]


def _check_parameters(outcome: Any, backbone: Path) -> None:
    """Counts against the equations, and against the tensors that were kept."""
    whole = sum(tensor.size for tensor in load_file(backbone / "model.safetensors").values())
    head = 2 * WIDTH + 2
    adapter = {"full": 0, "linear": 0, "lora": LAYERS * 4 * 2 * WIDTH, "deeplora": LAYERS * (4 * 2 * WIDTH + 4 * 4)}
    for made in outcome.records:
        method, params = made.spec.method, made.params
        trained = whole + head if method == "full" else adapter[method] + head
        assert params.total == whole + adapter[method] + head
        assert (params.trainable, params.head) == (trained, head)
        assert params.stored_bytes == 4 * trained
        kept = outcome.folder / made.run_id / "adapter.safetensors"
        assert kept.is_file() == (method != "full")
        if kept.is_file():
            assert sum(tensor.size for tensor in load_file(kept).values()) == trained


def _check_measured(outcome: Any) -> None:
    for made in outcome.records:
        method = made.spec.method
        assert made.metrics.primary.n == made.source.evaluation_examples["dev"] == 33
        assert made.metrics.primary.name == ("matthews" if made.task.name == "glue/cola" else "accuracy")
        assert made.source.kind == "directory"
        assert (made.cost.steps, made.cost.samples) == (2, 16)
        assert [point.step for point in made.curve] == [1, 2]
        # full: every linear layer (6 in each of 2 layers, and the pooler)
        assert len(made.ranks) == {"full": 13, "linear": 0, "lora": LAYERS, "deeplora": LAYERS}[method]
        assert {r.nominal for r in made.ranks} <= ({WIDTH} if method == "full" else {4})
        predicted = pandas.read_parquet(outcome.folder / made.run_id / "predictions.parquet")
        assert predicted.split.tolist() == ["dev"] * 33 and predicted["index"].tolist() == [*range(33)]
        named = np.stack(predicted.outputs).argmax(1)
        score = matthews_corrcoef if made.task.name == "glue/cola" else accuracy_score
        assert score(predicted.label, named) == pytest.approx(made.metrics.primary.value, abs=1e-6)


def test_json_is_one_object_that_holds_the_records(bench: Bench) -> None:
    outcome = bench("--method", "linear", "--task", "glue/cola,glue/qqp", "--json")
    assert outcome.code == 0
    value = json.loads(outcome.out)
    assert value["runs"] == [one.to_json() for one in outcome.records]
    assert [skip["name"] for skip in value["skipped"]] == ["glue/qqp"]


def test_seeds_share_a_group_and_one_row(bench: Bench) -> None:
    outcome = bench("--method", "linear", "--task", "glue/sst2", "--seeds", "0,1,5")
    assert [r.state for r in outcome.records] == ["done"] * 3
    assert len({r.group_id for r in outcome.records}) == 1
    assert {r.spec.seed for r in outcome.records} == {0, 1, 5}
    assert len({r.curve[-1].loss for r in outcome.records}) == 3
    assert sum(line.startswith("|") for line in outcome.out.splitlines()) == 3, "header, rule and one row"


def test_each_learning_rate_is_a_cell(bench: Bench) -> None:
    outcome = bench("--method", "linear", "--task", "glue/sst2", "--lr", "1e-3,1e-2,1e-1")
    assert {r.lr for r in outcome.records} == {1e-3, 1e-2, 1e-1} == {r.spec.lr for r in outcome.records}
    assert len({r.group_id for r in outcome.records}) == 3


SELECT = ("--method", "linear", "--task", "glue/rte,glue/sst2", "--select", "lr", "--select-on", "glue/stsb")


def test_select_chooses_on_a_split_of_train_and_never_on_dev(
    bench: Bench, command: Any, own_glue: Path, tmp_path: Path
) -> None:
    outcome = bench(*SELECT, "--seeds", "0,1")
    assert outcome.code == 0
    assert len(outcome.records) == 4
    selections = [made.selection for made in outcome.records]
    assert all(selection == selections[0] for selection in selections), "one choice for all, whatever task and seed"
    selection = selections[0]
    values = {trial.lr: trial.value for trial in selection.trials}
    assert set(values) == {3e-3, 1e-2, 3e-2}
    assert len(set(values.values())) == 3, "a choice between different values"
    assert selection.chosen == max(values, key=lambda lr: values[lr])
    assert (selection.split, selection.task, selection.metric) == ("holdout", "glue/stsb", "pearson+spearman")
    assert {made.lr for made in outcome.records} == {selection.chosen}
    assert {made.spec.lr for made in outcome.records} == {None}
    assert all([*made.metrics.all] == ["dev"] for made in outcome.records)
    assert [*outcome.folder.glob("*/predictions.parquet")], "runs keep their outputs"
    assert not [*outcome.folder.glob("selection/*/predictions.parquet")], "trials do not"
    ends = {3e-3: "smallest", 3e-2: "largest"}
    for made in outcome.records:
        edge = [warning for warning in made.warnings if "learning rates that were tried" in warning]
        assert edge == (
            [
                f"{selection.chosen:g} is the {ends[selection.chosen]} of the 3 learning rates that were tried: "
                "a better one may lie beyond"
            ]
            if selection.chosen in ends
            else []
        )

    trials = command("leaderboard", "--runs", str(tmp_path / "runs" / "selection"), folder=tmp_path / "runs/selection")
    assert {made.run_id for made in trials.records} == {trial.run_id for trial in selection.trials}
    for made in trials.records:
        assert [*made.metrics.all] == ["holdout"]
        assert made.metrics.primary.value == values[made.lr]
        assert made.metrics.primary.n == made.source.evaluation_examples["holdout"] == 4
        assert made.source.train_examples == 36
    assert "stsb" not in outcome.out
    assert "holdout" not in outcome.out

    # other dev labels, same choice by the same values
    dev = own_glue / "STS-B" / "dev.tsv"
    dev.write_text("\n".join(line.rsplit("\t", 1)[0] + "\t2.5" for line in dev.read_text().splitlines()[1:]))
    header = (own_glue / "STS-B" / "train.tsv").read_text().splitlines()[0]
    dev.write_text(header + "\n" + dev.read_text())
    other = bench(*SELECT, data=own_glue, out=tmp_path / "other")
    blind = other.records[0].selection
    assert [(t.lr, t.value) for t in blind.trials] == [(t.lr, t.value) for t in selection.trials]


def test_select_of_a_list_on_each_cells_own_train(bench: Bench, fitted: list[Any]) -> None:
    words = ("--method", "lora", "--task", "glue/stsb,glue/rte", "--select", "lr", "--lr", "1e-4,3e-2", "--widen", "0")
    outcome = bench(*words)
    assert {made.selection.task for made in outcome.records} == {"glue/stsb", "glue/rte"}
    assert [[t.lr for t in made.selection.trials] for made in outcome.records] == [[1e-4, 3e-2]] * 2
    assert len(fitted) == 6
    assert bench(*words).code == 0
    assert len(fitted) == 6, "neither runs nor trials are trained twice"


def test_few_shot_trains_on_so_many_examples_drawn_by_seed(bench: Bench, tmp_path: Path) -> None:
    words = ("--method", "linear", "--task", "glue/stsb", "--lr", "1e-6", "--seeds", "0,1")
    outcome = bench(*words, "--train-samples", "8")
    assert [made.source.train_examples for made in outcome.records] == [8, 8]
    assert [made.metrics.primary.n for made in outcome.records] == [21, 21]
    losses = [[point.loss for point in made.curve] for made in outcome.records]
    # one batch holds all of them, so at this learning rate both steps see the same loss
    assert [pair[1] for pair in losses] == pytest.approx([pair[0] for pair in losses], abs=1e-3)
    assert abs(losses[0][0] - losses[1][0]) > 0.01, "another seed draws others"
    everything = [[p.loss for p in made.curve] for made in bench(*words, out=tmp_path / "all").records]
    assert all(abs(first - second) > 0.01 for first, second in everything), "two batches of all are two losses"


@pytest.mark.parametrize(("epochs", "steps", "samples"), [("2", 10, 80), ("0.5", 3, 24)])
def test_epochs_become_steps(bench: Bench, epochs: str, steps: int, samples: int) -> None:
    made = bench("--method", "linear", "--task", "glue/rte", budget=("--epochs", epochs)).only()
    assert (made.cost.steps, made.cost.samples) == (steps, samples)
    assert steps == math.ceil(float(epochs) * 40 / 8)


def test_dry_run_trains_nothing_and_names_the_runs_to_come(bench: Bench, fitted: list[Any], tmp_path: Path) -> None:
    plan = bench(*FOUR, "--dry-run")
    assert (plan.code, fitted) == (0, [])
    assert not (tmp_path / "runs").exists()
    cells = json.loads(bench(*FOUR, "--dry-run", "--json").out)["runs"]
    assert len(cells) == 8
    assert all(cell["run_id"] in plan.out for cell in cells)
    made = bench("--method", "linear", "--task", "glue/cola", "--set", "head.dropout=0")
    assert made.only().run_id in plan.out


def test_micro_batches_do_not_change_a_run(bench: Bench, tmp_path: Path) -> None:
    words = ("--method", "lora", "--task", "glue/stsb", "--train-samples", "35")  # the last batch of 8 holds three
    whole = bench(*words, budget=("--epochs", "1")).only()
    parts = bench(*words, "--set", "runtime.micro_batch=2", budget=("--epochs", "1"), out=tmp_path / "parts").only()
    assert parts.run_id == whole.run_id
    assert [p.loss for p in parts.curve] == pytest.approx([p.loss for p in whole.curve], abs=1e-6)
    scores = whole.metrics.all["dev"]
    assert abs(scores["pearson"]) > 0.01, "correlations move with every single prediction"
    assert parts.metrics.all["dev"] == pytest.approx(scores, abs=1e-6)


def test_without_network_the_embedded_data_is_used_and_named(bench: Bench) -> None:
    outcome = bench("--method", "linear", "--task", "glue/wnli", data=None)
    assert outcome.code == 0
    assert outcome.only().source.kind == "embedded"
    assert "embedded" in outcome.out
    [line] = [line for line in outcome.err.splitlines() if "embedded" in line]
    assert "--data-dir" in line


def test_one_seed_that_may_have_been_meant_as_many(bench: Bench) -> None:
    words = ("--method", "linear", "--task", "glue/cola", "--dry-run")
    said = "--seeds 3 is one seed, the number 3; for 3 seeds: --seeds 0,1,2\n"
    assert bench(*words, "--seeds", "3").err == said
    for seeds in ("0", "1", "2,3", "1234"):
        assert bench(*words, "--seeds", seeds).err == ""


def test_the_next_commands_work_as_they_are_printed(bench: Bench, command: Any, tmp_path: Path) -> None:
    words = ("--method", "linear", "--task", "glue/cola")
    outcome = bench(*words, out=tmp_path / "my runs")
    printed = outcome.err.rpartition("next: ")[2].strip().split(", ")
    assert len(printed) == 2
    for line in printed:
        program, *rest = shlex.split(line)
        assert program == "bench" and command(*rest, folder=tmp_path).code == 0
    assert "--runs" not in bench(*words, out=Path("runs")).err.rpartition("next: ")[2]


def test_all_files_of_a_run_have_the_mode_of_the_umask(bench: Bench, command: Any, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        words = ("--task", "glue/cola", "--set", "runtime.save=all")
        records = bench("--method", "lora,full", *words).records
        lora = next(made for made in records if made.spec.method == "lora")
        exported = tmp_path / "runs" / lora.run_id / "peft"
        assert command("export", lora.run_id, "--runs", "runs", "--peft", str(exported), folder=tmp_path).code == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert {"record.json", "adapter.safetensors", "model.safetensors", "spectra.npz", "adapter_model.safetensors"} <= {
        path.name for path in files
    }
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files if path.stat().st_mode & 0o777 != 0o640} == {}


def test_the_command_of_a_record_trains_the_same_run(
    bench: Bench, command: Any, glue: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Data that BENCH_DATA named were missing in it, so it trained on embedded ones, with exit 0."""
    rows = [f"{'good' if i % 2 else 'bad'} text {i},{i % 2}" for i in range(40)]
    (tmp_path / "my table.csv").write_text("text,label\n" + "\n".join(rows))
    monkeypatch.setenv("BENCH_DATA", str(glue.parent))
    first = bench("--method", "linear", "--task", "glue/cola,table:my table.csv", "--seeds", "0,1", data=None)
    monkeypatch.delenv("BENCH_DATA")
    (tmp_path / "runs").rename(tmp_path / "before")
    assert first.code == 0
    for path in (tmp_path / "before").glob("*/record.json"):
        made = json.loads(path.read_text())
        _, *words = made["provenance"]["command"]
        assert command(*words, folder=tmp_path / "runs").code == 0
        again = json.loads((tmp_path / "runs" / made["run_id"] / "record.json").read_text())
        assert again["metrics"] == made["metrics"] and again["curve"] == made["curve"]
    assert len([*(tmp_path / "runs").iterdir()]) == 4
