"""Class weights, and several classes in a row, from the user's file to record, leaderboard and `bench show`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import encoded, noise, write_tree
from safetensors.numpy import load_file
from sklearn.utils.class_weight import compute_class_weight

Bench = Callable[..., Any]
BALANCED = ("--set", "task.class_weights=balanced")
SEVERAL = ("--set", "task.kind=multilabel")


def unequal(file: Path, n: int = 50) -> Path:
    """Classes x, y and z in 1 : 2 : 7, one text for each row."""
    rows = [(f"{'abc'[c]} {i}", "xyz"[c]) for i in range(n) for c in [0 if i % 10 == 0 else 1 if i % 10 < 3 else 2]]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return file


def several(file: Path, n: int = 40) -> Path:
    """Every row has the classes whose letters are in its text; an eighth of the rows has none."""
    sets = [[name for k, name in enumerate("abc") if i >> k & 1] for i in range(n)]
    texts = [f"{' '.join(labels)} z {i}" for i, labels in enumerate(sets)]
    if file.suffix == ".jsonl":
        lines = [json.dumps({"text": text, "label": labels}) for text, labels in zip(texts, sets, strict=True)]
        file.write_text("\n".join(lines))
    else:
        with file.open("w", newline="") as stream:
            cells = [";".join(labels) for labels in sets]
            csv.writer(stream).writerows([("text", "label"), *zip(texts, cells, strict=True)])
    return file


def test_class_weights_of_a_table(bench: Bench, command: Any, tmp_path: Path) -> None:
    words = ("--method", "lora", "--task", f"table:{unequal(tmp_path / 'mine.csv')}")
    plain = bench(*words, data=None).only()
    outcome = bench(*words, *BALANCED, data=None)
    [weighted] = [made for made in outcome.records if made.run_id != plain.run_id]
    assert weighted.source == plain.source
    assert weighted.spec.options.task == {"max_length": 24, "class_weights": "balanced"}
    names = np.array(list("xyz"))
    labels = names.repeat([5, 9, 31])  # 45 rows to train on: the 5 to validate on are one of y and four of z
    weights = compute_class_weight("balanced", classes=names, y=labels)
    assert weighted.report["class_weights"] == pytest.approx(weights, rel=1e-9)
    assert "class_weights" not in plain.report
    assert weighted.curve[0].loss != plain.curve[0].loss
    assert weighted.metrics.primary.name == "macro_f1"
    assert set(weighted.metrics.all["validation"]) == {"macro_f1", "balanced_accuracy", "accuracy"}
    board = command("leaderboard", "--runs", str(outcome.folder), folder=tmp_path).out
    assert "mine macro_f1 ↑" in board
    assert "(task.class_weights=balanced)" in board and "(task.class_weights=none)" in board
    shown = command("show", weighted.run_id, "--runs", str(outcome.folder), folder=tmp_path).out
    assert "(largest class 0.8000)" in shown and shown.count("largest class") == 1, "beside accuracy alone"


def test_class_weights_of_images(bench: Bench, tmp_path: Path) -> None:
    names = [*(f"cat/{i}.png" for i in range(4)), *(f"dog/{i}.png" for i in range(16))]
    place = write_tree(tmp_path / "pets", {name: encoded(noise(i)) for i, name in enumerate(names)})
    words = ("--method", "full", "--task", f"images:{place}", "--backbone", "mlp", "--set", "task.validation=0.25")
    small = ("--max-steps", "2", "--batch-size", "8", "--accelerator", "cpu", "--out", str(tmp_path / "runs"))
    from bench.cli import main

    assert main(["run", *words, *small, *BALANCED]) == 0
    from bench.records import record

    [made], problems = record.load_all(tmp_path / "runs")
    assert not problems
    sizes = made.source.reading["sizes"]
    assert sizes == {"train": 15, "validation": 5}
    assert made.report["class_weights"] == pytest.approx([15 / (2 * 3), 15 / (2 * 12)])
    assert "balanced_accuracy" in made.metrics.all["validation"]


@pytest.mark.slow
def test_class_weights_on_two_devices_equal_one(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--method", "lora", "--task", f"table:{unequal(Path('mine.csv'))}", *BALANCED)
    one = bench(*words, data=None, budget=("--max-steps", "7"), out=tmp_path / "one").only()
    outcome = bench(*words, "--devices", "2", data=None, budget=("--max-steps", "7"), out=tmp_path / "two")
    assert outcome.code == 0, outcome.err
    two = outcome.only()
    assert (two.run_id, two.cost.devices) == (one.run_id, 2)
    assert [p.loss for p in two.curve] == pytest.approx([p.loss for p in one.curve], abs=1e-6)
    assert two.metrics.all == one.metrics.all


@pytest.mark.parametrize(("name", "more"), [("mine.csv", ("--set", "task.separator=;")), ("mine.jsonl", ())])
def test_several_classes(bench: Bench, command: Any, tmp_path: Path, name: str, more: tuple[str, ...]) -> None:
    outcome = bench("--method", "lora", "--task", f"table:{several(tmp_path / name)}", *SEVERAL, *more, data=None)
    assert outcome.code == 0, outcome.err
    assert "table/mine: multilabel (task.kind=multilabel), 3 classes: 'a', 'b', 'c'" in outcome.err
    made = outcome.only()
    assert (made.task.num_classes, made.task.multilabel) == (3, True)
    assert made.spec.options.task == {"max_length": 24, "class_weights": "none"}, "the data speak for the other options"
    assert made.source.reading["labels"] == ["a", "b", "c"]
    assert made.metrics.primary.name == "micro_f1"
    assert set(made.metrics.all["validation"]) == {"micro_f1", "macro_f1", "map"}
    assert made.metrics.majority == {}
    assert "the outputs name the same classes, or none, for every example of validation: no class was learned" in (
        made.warnings
    ), "two steps are too few"
    assert 0.5 < made.curve[0].loss < 0.9, "mean binary cross-entropy of outputs near 0: log 2"
    assert load_file(outcome.folder / made.run_id / "adapter.safetensors")["head.weight"].shape[0] == 3
    assert "mine micro_f1 ↑" in outcome.out
    assert [word for word in made.provenance.command if word.startswith("task.")] == [
        *(f"task.{option}" for option in ("max_length=24", "kind=multilabel")),
        *more[1:],
    ]
    for words in (("leaderboard", "--format", "html"), ("show", made.run_id), ("leaderboard", "--format", "json")):
        shown = command(*words, "--runs", str(outcome.folder), folder=tmp_path)
        assert shown.code == 0 and "micro_f1" in shown.out


def test_several_classes_are_learned(bench: Bench, lively_bert: Path, tmp_path: Path) -> None:
    words = ("--method", "full", "--task", f"table:{several(tmp_path / 'mine.jsonl')}", *SEVERAL, "--lr", "3e-3")
    dev = ("--set", f"task.validation={tmp_path / 'mine.jsonl'}")
    made = bench(*words, *dev, data=None, backbone=str(lively_bert), budget=("--max-steps", "100")).only()
    assert min(made.metrics.all["validation"].values()) > 0.9
    assert not [line for line in made.warnings if "no class was learned" in line]


def test_micro_batches_of_several_classes_change_nothing(bench: Bench, tmp_path: Path) -> None:
    words = ("--method", "linear", "--task", f"table:{several(tmp_path / 'mine.jsonl')}", *SEVERAL)
    one = bench(*words, data=None, out=tmp_path / "one").only()
    two = bench(*words, "--set", "runtime.micro_batch=2", data=None, out=tmp_path / "two").only()
    assert one.run_id == two.run_id
    assert [p.loss for p in two.curve] == pytest.approx([p.loss for p in one.curve], rel=1e-5)


def test_a_probe_on_several_classes(bench: Bench, tmp_path: Path) -> None:
    made = bench("--method", "mlm", "--task", f"table:{several(tmp_path / 'mine.jsonl')}", *SEVERAL, data=None).only()
    assert {"probe_micro_f1", "probe_macro_f1", "probe_map"} < set(made.metrics.all["validation"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "mlm", *BALANCED), "mlm on table/mine cannot use task.class_weights=balanced"),
        (
            ("--method", "lora", *BALANCED, "--set", "head.loss=squared"),
            "head.loss=squared does not go with task.class",
        ),
        (("--method", "lora", *SEVERAL, "--set", "head.loss=squared"), "head.loss=squared does not go with task.kind"),
        (("--method", "lora", *SEVERAL, *BALANCED), "task.class_weights=balanced needs one class in each row"),
        (("--method", "lora", "--set", "task.class_weights=equal"), "expected none or balanced"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    bench: Bench, fitted: list[Any], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    outcome = bench("--task", f"table:{unequal(tmp_path / 'mine.csv')}", *words, data=None)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") and said in outcome.err
    assert not fitted and not outcome.folder.exists()


def test_tasks_of_others_do_not_have_the_options(bench: Bench, fitted: list[Any]) -> None:
    for words in (BALANCED, SEVERAL):
        outcome = bench("--method", "lora", "--task", "glue/cola", *words)
        assert outcome.code == 2 and "unknown option 'task." in outcome.err
    assert not fitted
