"""Own data with faults that a score hides: examples seen in training, classes never scored, odd labels and files."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from image_files import encoded, noise, tree, write_tree
from table_files import everything, opened, refused, write

from bench.core.errors import UsageError
from bench.records.data import DataRequest, Dataset
from tasks.corpus.task import CorpusConfig, TextCorpus
from tasks.images.own import Images, ImagesConfig
from tasks.io import readers
from tasks.io.cautions import doubtful_classes
from tasks.table.labels import MISSING, canonical, guess_kind, sort_classes, split


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))


def images(place: Path, **options: Any) -> Dataset:
    return Images(str(place)).open(DataRequest(config=ImagesConfig(**options)))


# examples in train and in validation


def test_without_equal_texts_the_draw_is_that_of_the_first_version() -> None:
    labels = list("aabbbc") * 7
    assert split(labels, 0.2, seed=3, stratify=True, keys=range(42))[1] == [4, 15, 17, 20, 24, 30, 31, 38]
    assert split(labels, 0.2, seed=3, stratify=False)[1] == [4, 15, 17, 20, 23, 30, 31, 35]


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_equal_keys_are_on_one_side_and_the_share_is_near(share: float, stratify: bool) -> None:
    draw = random.Random(0)
    keys = [draw.randrange(150) for _ in range(400)]
    labels = [draw.choice("aab") for _ in keys]  # equal keys may have several labels
    train, held = split(labels, share, seed=1, stratify=stratify, keys=keys)
    assert sorted(train + held) == list(range(400))
    assert not {keys[i] for i in train} & {keys[i] for i in held}
    assert abs(len(held) - 400 * share) <= 4
    assert {labels[i] for i in train} == {"a", "b"}


def test_equal_texts_of_a_table_are_drawn_together(tmp_path: Path) -> None:
    data = [(("Good  one {}" if copy else "good one {} ").format(i), i % 2) for i in range(40) for copy in (0, 1)]
    _, dataset = opened(write(tmp_path / "mine.csv", data))
    train, held = ({row.text.strip().split()[-1] for row in part} for part in (dataset.train, everything(dataset)[-8:]))
    assert len(dataset.evaluation["validation"]) == 8
    assert not train & held
    assert (dataset.warnings, dataset.reading["also_in_train"]) == ((), 0)


def test_texts_that_are_all_repeated_often_cannot_be_divided(tmp_path: Path) -> None:
    problem = refused(write(tmp_path / "mine.csv", [("a", 0), ("b", 1)] * 20))
    assert "equal texts stay together" in problem.what
    assert "40 rows, 2 different texts" in problem.known


def test_rows_to_validate_that_train_has_are_counted(tmp_path: Path) -> None:
    pairs = [(f"q{i}", f"a{i}", i % 2) for i in range(30)]
    header = ("premise", "hypothesis", "label")
    train = write(tmp_path / "train.csv", pairs, header)
    other = [("Q1", " a1", 0), ("q2", "a3", 1), *pairs[5:9], ("new", "new", 0)]
    _, dataset = opened(train, validation=str(write(tmp_path / "dev.csv", other, header)))
    assert dataset.warnings == (
        "table/train: 5 of 7 rows to validate are also in train: their scores say nothing about new ones",
    )
    assert dataset.reading["also_in_train"] == 5


def test_equal_images_are_drawn_together_and_counted(tmp_path: Path) -> None:
    copies = {f"{'cat' if i % 2 else 'dog'}/{i}-{copy}.png": encoded(noise(i)) for i in range(20) for copy in "ab"}
    drawn = images(write_tree(tmp_path / "copies", copies), validation="0.2")
    train, held = ({image.tobytes() for image in rows.inputs} for rows in (drawn.train, drawn.evaluation["validation"]))
    assert (len(drawn.evaluation["validation"]), len(held)) == (8, 4)
    assert not train & held
    assert (drawn.warnings, drawn.reading["also_in_train"]) == ((), {})
    files = tree()
    files["test/dog/1.png"] = files["train/cat/2.png"]
    for _ in range(2):  # decoded, and from the cache
        leaking = images(write_tree(tmp_path / "leaking", files))
        assert leaking.reading["also_in_train"] == {"test": 1}
        assert [line.split(":")[1] for line in leaking.warnings] == [" 1 of 6 test images are also in train"]


def test_passages_to_evaluate_that_train_has_are_counted(tmp_path: Path) -> None:
    for name, numbers in (("a.txt", range(20)), ("b.txt", range(15, 30))):
        (tmp_path / name).write_text("\n\n".join(f"passage {i}" for i in numbers))

    def corpus(**options: Any) -> Dataset:
        return TextCorpus(str(tmp_path / "a.txt")).open(DataRequest(config=CorpusConfig(**options)))

    other = corpus(validation=str(tmp_path / "b.txt"))
    assert other.reading["also_in_train"] == 5
    assert "corpus/a: 5 of 15 paragraphs to evaluate are also in train" in other.warnings[0]
    drawn = corpus()
    assert (drawn.reading["also_in_train"], drawn.warnings) == (0, ())


# labels


def test_missing_labels_are_those_of_pandas() -> None:
    from pandas._libs.parsers import STR_NA_VALUES  # what pandas.read_csv takes for NaN

    assert {"", *MISSING} == STR_NA_VALUES
    for text in STR_NA_VALUES:
        with pytest.raises(ValueError, match="the label is missing"):
            canonical(f" {text} ")


def test_classes_that_look_alike_or_like_several_are_a_warning(tmp_path: Path) -> None:
    labels = ["Yes", "yes ", "no", "a|b", "very  good", "Very good"]
    file = write(tmp_path / "mine.csv", [(f"t{i}", labels[i % 6]) for i in range(120)])
    alike, several = opened(file)[1].warnings
    assert alike == (
        "table/mine: classes that differ in case or space alone are different ones: "
        "'Very good', 'very  good', 'Yes', 'yes'"
    )
    assert several.endswith(
        "several labels of one example, but each is one class (--set task.kind=multilabel reads several): 'a|b'"
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["a;b", "c"], ["'a;b'"]),
        (["a, b", "b", "a"], ["'a, b'"]),
        (["a,b", "b,c", "c,a"], ["'a,b', 'b,c', 'c,a'"]),
        (["Paris, France", "Lyon, France"], []),
        (["yes", "no"], []),
        (["1", "2"], []),
    ],
)
def test_which_classes_look_like_several(classes: list[str], said: list[str]) -> None:
    assert [line.rpartition("class: ")[2] for line in doubtful_classes("t", classes)] == said


def test_a_class_that_is_never_scored_is_a_warning(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", [(f"t{i}", "xyz"[min(i, 2)]) for i in range(40)])
    assert opened(file)[1].warnings == ("table/mine: 2 of 3 classes are never scored, validation has none: 'x', 'y'",)
    files = tree()
    place = write_tree(tmp_path / "pets", {name: data for name, data in files.items() if name[:8] != "test/dog"})
    assert images(place).warnings == ("images/pets: 1 of 2 classes are never scored, test has none: 'dog'",)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([str(i) for i in range(301)] * 2, "regression"),
        ([str(i) for i in range(300)] * 2, None),
        ([*(str(i) for i in range(21)), "1", "x"], "regression"),
        ([str(i) for i in range(21)] * 19 + ["x"], None),
        ([str(i) for i in range(20)] * 19, "classification"),
    ],
)
def test_whole_numbers_that_repeat_are_asked_about(tmp_path: Path, labels: list[str], kind: str | None) -> None:
    assert guess_kind(Counter(labels)) == kind
    if kind is None:
        numbers = [label for label in labels if label != "x"]
        file = write(tmp_path / "mine.csv", [(f"t{i}", label) for i, label in enumerate(numbers)])
        with pytest.raises(UsageError, match=f"{len(set(numbers))} different whole numbers") as caught:
            opened(file)
        assert "task.kind=classification" in caught.value.todo
        assert opened(file, kind="classification")[0].spec.num_classes == len(set(numbers))


def test_numbers_in_names_order_the_classes() -> None:
    stars = [f"{i} star{'s'[: i > 1]}" for i in range(1, 11)]
    assert sort_classes(sorted(stars)) == tuple(stars)
    assert sort_classes(["grade 1b", "grade 01", "grade 1", "a"]) == ("a", "grade 01", "grade 1", "grade 1b")


def test_decimal_commas_are_no_classes(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.tsv", [(f"t{i}", f"{i % 5},5") for i in range(40)])
    problem = refused(file)
    assert "decimal comma" in problem.what and "'0,5'" in problem.known
    assert opened(file, kind="classification")[0].spec.num_classes == 5


# files


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_numbers_are_texts_in_every_format(tmp_path: Path, suffix: str) -> None:
    numbers = [7, -3, 12, 10**20] if suffix != ".parquet" else [7, -3, 12, 10**18]
    file = write(tmp_path / f"mine{suffix}", [(numbers[i % 4], str(1 + i // 20)) for i in range(40)])
    _, dataset = opened(file, kind="classification", validation=str(file))
    assert Counter(row.text for row in dataset.train) == {str(number): 10 for number in numbers}
    assert dataset.reading["labels"] == ["1", "2"]


@pytest.mark.parametrize("text", ["x" * (3 << 20), "a line\n" * (1 << 19), 'say ""this""\n' * (1 << 17)])
@pytest.mark.parametrize("quoted", [True, False])
def test_a_long_field_is_no_open_quote(tmp_path: Path, text: str, quoted: bool) -> None:
    if "\n" in text and not quoted:
        text = text.replace("\n", " ").replace('""', "'")
    file = tmp_path / "mine.csv"
    sign = '"' * quoted
    file.write_text(f"text,label\n{sign}{text}{sign},x\n" + "".join(f"t{i},{'xy'[i % 2]}\n" for i in range(20)))
    texts = {row.text for row in everything(opened(file)[1])}
    assert text.replace('""', '"') in texts and len(texts) == 21


def test_a_field_that_is_too_long_is_said_to_be_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = csv.field_size_limit(100)
    monkeypatch.setattr(readers, "LONGEST", 100)
    (tmp_path / "mine.csv").write_text(f"text,label\n{'x' * 101},x\n")
    try:
        assert "a field of more than" in refused(tmp_path / "mine.csv").what
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("name", "header", "sign"), [("a.csv", "text;label", ";"), ("a.csv", "text\tlabel", r"\t"), ("a.tsv", "a,b", ",")]
)
def test_other_separators_are_named(tmp_path: Path, name: str, header: str, sign: str) -> None:
    (tmp_path / name).write_text(f"{header}\n")
    problem = refused(tmp_path / name)
    assert f"'{sign}' separates the columns" in problem.what
    assert "line 1" in problem.known and ".tsv" in problem.todo


def test_a_key_that_the_first_line_lacks_is_a_column(tmp_path: Path) -> None:
    lines = [f'{{"id": {i}, "text": "t{i}"{f", {chr(34)}label{chr(34)}: {i % 2}" if i else ""}}}' for i in range(21)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    problem = refused(tmp_path / "mine.jsonl")
    assert "the label is missing" in problem.what and "line 1" in problem.known
    _, dataset = opened(tmp_path / "mine.jsonl", on_bad="skip")
    assert len(everything(dataset)) == 20
