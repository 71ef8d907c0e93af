"""Tables whose rows have any number of classes: reading, splitting and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sklearn.preprocessing import MultiLabelBinarizer
from table_files import everything, opened, refused, write

from bench.core.errors import UsageError
from tasks.table.labels import canonical_classes, rarest, split

SETS = [("a", "b"), ("b",), (), ("c", "a"), ("10", "9"), ("a",)]
"""Classes of six rows, the third with none."""


def rows(n: int = 60, sign: str = "|") -> list[tuple[str, str]]:
    return [(f"text {i}", sign.join(SETS[i % len(SETS)])) for i in range(n)]


def lists(n: int = 60) -> list[tuple[str, list[str]]]:
    return [(f"text {i}", list(SETS[i % len(SETS)])) for i in range(n)]


def several(file: Path, **options: Any) -> Any:
    return opened(file, kind="multilabel", **options)


@pytest.mark.parametrize(
    ("suffix", "as_lists", "options"),
    [
        (".csv", False, {}),
        (".tsv", False, {"separator": ";"}),
        (".csv", False, {"separator": ", "}),
        (".jsonl", False, {}),
        (".jsonl", True, {}),
        (".parquet", True, {}),
    ],
)
def test_labels_are_those_of_scikit_learns_binarizer(
    tmp_path: Path, suffix: str, as_lists: bool, options: dict[str, str]
) -> None:
    file = tmp_path / f"mine{suffix}"
    task, dataset = several(write(file, lists() if as_lists else rows(sign=options.get("separator", "|"))), **options)
    names = dataset.reading["labels"]
    assert names == ["9", "10", "a", "b", "c"]
    found = {row.text: row.label for row in everything(dataset)}
    theirs = MultiLabelBinarizer(classes=names).fit_transform([SETS[i % 6] for i in range(60)])
    assert [found[f"text {i}"] for i in range(60)] == [tuple(row) for row in theirs.tolist()]
    spec = task.spec
    assert (spec.num_classes, spec.multilabel, spec.balanced) == (5, True, False)
    assert (spec.metrics, spec.primary) == (("micro_f1", "macro_f1", "map"), ("micro_f1",))
    assert "multilabel (task.kind=multilabel), 5 classes" in dataset.notes[0]
    assert dataset.notes[0].endswith("1.33 classes per row, 10 rows have none")
    assert (dataset.reading["kind"], dataset.reading["separator"]) == ("multilabel", options.get("separator", "|"))
    assert dataset.warnings == ()


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("", ()),
        (None, ()),
        ([], ()),
        (" b |a|| a ", ("a", "b")),
        (["x|y", "x"], ("x", "x|y")),
        ([1, 2.0, True], ("1", "2", "true")),
        (3.0, ("3",)),
    ],
)
def test_what_a_cell_names(label: object, classes: tuple[str, ...]) -> None:
    assert canonical_classes(label, "|") == classes


@pytest.mark.parametrize("label", ["a|NaN", "null", [None], [["a"]], [{}], {}, ["\ud800"], b"x"])
def test_what_is_no_class(label: object) -> None:
    with pytest.raises(ValueError, match="label"):
        canonical_classes(label, "|")


def test_the_split_takes_the_same_share_of_every_rarest_class(tmp_path: Path) -> None:
    sets = [("common",)] * 60 + [("common", "rare")] * 20 + [("rare", "rarest")] * 10 + [()] * 10
    assert Counter(rarest(sets)) == {"common": 60, "rare": 20, "rarest": 10, "": 10}
    train, held = split(rarest(sets), 0.2, seed=3, stratify=True)
    assert Counter(sets[i] for i in held) == {
        ("common",): 12, ("common", "rare"): 4, ("rare", "rarest"): 2, (): 2
    }  # fmt: skip
    assert len(train) == 80
    file = write(tmp_path / "mine.csv", [(f"t{i}", "|".join(labels)) for i, labels in enumerate(sets)])
    dataset = several(file, validation="0.2")[1]
    assert Counter(row.label for row in dataset.evaluation["validation"]) == {
        (1, 0, 0): 12, (1, 1, 0): 4, (0, 1, 1): 2, (0, 0, 0): 2
    }  # fmt: skip


def test_classes_without_rows_on_a_side_are_warnings(tmp_path: Path) -> None:
    """`c` is always beside a class that is as rare, so no row is drawn or kept for its sake."""
    sets = [("x",), ("y",)] * 20 + [("c", "b1"), ("b1",), ("c", "b2"), ("b2",)]
    file = write(tmp_path / "mine.csv", [(f"t{i}", "|".join(labels)) for i, labels in enumerate(sets)])
    for seed in range(40):
        lines = several(file, validation="0.5", split_seed=seed)[1].warnings
        if said := [line for line in lines if "never trained" in line]:
            assert said == ["table/mine: 1 of 5 classes are never trained, train has none: 'c'"]
            return
    raise AssertionError("no seed draws both rows of `c`")


def test_a_class_that_train_lacks_is_a_bad_row_of_a_validation_file(tmp_path: Path) -> None:
    train, dev = (
        write(tmp_path / "mine.csv", rows()),
        write(tmp_path / "dev.csv", [("t", "a|new"), ("u", "b"), ("v", "")]),
    )
    problem = refused(train, kind="multilabel", validation=str(dev))
    assert "the label is not one of train's ('new')" in problem.what and "line 2" in problem.known
    dataset = several(train, validation=str(dev), on_bad="skip")[1]
    assert [row.label for row in dataset.evaluation["validation"]] == [(0, 0, 0, 1, 0), (0, 0, 0, 0, 0)]
    assert "4 of 5 classes are never scored" in dataset.warnings[0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", ""] * 9, "all labels are equal: 'a'"),
        (["", ""] * 9, "no row has a label"),
        ([f"id{i}|b" for i in range(9)], "10 different labels in 9 rows"),
    ],
)
def test_labels_that_say_nothing(tmp_path: Path, labels: list[str], said: str) -> None:
    problem = refused(write(tmp_path / "mine.csv", [(f"t{i}", x) for i, x in enumerate(labels)]), kind="multilabel")
    assert said in problem.what and "task.separator" in problem.todo


def test_too_many_classes_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.table.labels.MOST_CELLS", 299)
    problem = refused(write(tmp_path / "mine.csv", rows()), kind="multilabel")
    assert "5 classes times 60 rows are more than 299" in problem.what


def test_a_list_is_read_with_the_option_alone(tmp_path: Path) -> None:
    problem = refused(write(tmp_path / "mine.jsonl", lists()))
    assert "the label is a list, which only task.kind=multilabel reads" in problem.what


def test_a_wrong_separator_is_seen(tmp_path: Path) -> None:
    dataset = several(write(tmp_path / "mine.csv", rows(sign=";")))[1]
    assert "each is one class (--set task.separator=SIGN reads several): '10;9', 'a;b', 'c;a'" in dataset.warnings[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"separator": ";"}, "task.separator=; has no effect with task.kind=auto"),
        ({"kind": "multilabel", "separator": " "}, "task.separator is empty"),
        ({"kind": "multilabel", "class_weights": "balanced"}, "needs one class in each row"),
        ({"kind": "regression", "class_weights": "balanced"}, "needs one class in each row"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    file = write(tmp_path / "mine.csv", [(f"t{i}", i % 5) for i in range(40)])
    with pytest.raises(UsageError) as caught:
        opened(file, **options)
    assert said in caught.value.what and caught.value.known and caught.value.todo


def test_class_weights_change_the_run_and_neither_data_nor_metrics(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", [(f"t{i}", "xy"[i % 5 == 0]) for i in range(40)])
    (plain, one), (weighted, two) = opened(file), opened(file, class_weights="balanced")
    assert plain.spec.metrics == ("macro_f1", "balanced_accuracy", "accuracy")
    assert plain.spec.primary == ("macro_f1",)
    assert not plain.spec.balanced and weighted.spec == replace(plain.spec, balanced=True)
    assert one.hash == two.hash and "class_weights" not in two.reading, "the option is part of a run's identity"


def test_equal_files_of_either_kind_are_other_data(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", [(f"t{i}", "ab"[i % 2]) for i in range(40)])
    assert opened(file)[1].hash != several(file)[1].hash
    assert json.loads(json.dumps(several(file)[1].reading))
