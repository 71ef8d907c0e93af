"""Own data with faults that a score hides: examples seen in training, classes never scored, odd labels and files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from image_files import encoded, noise, tree, write_tree
from table_files import everything, opened, refused, write

from bench.records.data import DataRequest, Dataset
from tasks.corpus.task import CorpusConfig, TextCorpus
from tasks.images.own import Images, ImagesConfig
from tasks.table.labels import split


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
