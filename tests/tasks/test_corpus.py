"""`corpus:PATH`: what a passage is, what is held out, and what is said of texts that cannot be used."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks.corpus.passages
from bench.core.errors import BenchError, DataProblem, UsageError
from bench.records.data import DataRequest, Dataset
from tasks.corpus.passages import find_files, held_out, index_files, key_of
from tasks.corpus.task import CorpusConfig, TextCorpus

TEXT = "\ufeffFirst line\r\nof the first.\r\n\r\n \t\n  Second,\u2028é\x0bwith 日本 \n\n\n# Third\nfourth line"
PARAGRAPHS = ["First line\r\nof the first.", "Second,\u2028é\x0bwith 日本", "# Third\nfourth line"]
LINES = ["First line", "of the first.", "Second,\u2028é\x0bwith 日本", "# Third", "fourth line"]


def written(folder: Path, name: str = "a.txt", text: str | bytes = TEXT) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def many(folder: Path, n: int = 200, name: str = "a.txt") -> Path:
    return written(folder, name, "\n\n".join(f"passage {i} of the text\nand more" for i in range(n)))


def opened(path: Path, *, on_bad: Any = "error", **options: Any) -> Dataset:
    return TextCorpus(str(path)).open(DataRequest(config=CorpusConfig(**options), on_bad=on_bad))


def texts(rows: Any) -> list[str]:
    return [row.text for row in rows]


@pytest.mark.parametrize(("unit", "want"), [("paragraph", PARAGRAPHS), ("line", LINES)])
def test_passages_are_what_stands_between_blank_lines_or_lines(tmp_path: Path, unit: Any, want: list[str]) -> None:
    passages = index_files([written(tmp_path)], unit=unit, on_bad="error").passages
    assert texts(passages) == want
    assert [passages[i].text for i in (0, 1, -1)] == [want[0], want[1], want[-1]]
    assert texts(passages[1:]) == want[1:]
    assert {(row.text_pair, row.label) for row in passages} == {(None, 0)}
    with pytest.raises(IndexError):
        passages[len(want)]


def test_files_of_a_folder_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.TXT", "a/z.md", "a.txt", "c.csv", ".hidden/x.txt"):
        written(tmp_path, name, name)
    assert [file.relative_to(tmp_path).as_posix() for file in find_files(tmp_path)] == [
        ".hidden/x.txt",
        "a.txt",
        "a/z.md",
        "b.TXT",
    ]
    assert find_files(tmp_path / "c.csv") == (tmp_path / "c.csv",), "a file that is named is read whatever its ending"
    passages = index_files(find_files(tmp_path), unit="paragraph", on_bad="error").passages
    assert texts(passages) == [".hidden/x.txt", "a.txt", "a/z.md", "b.TXT"]


@pytest.mark.parametrize("word", ["word ", "日本語", "\U0001f600", "word\n"])
@pytest.mark.parametrize("longest", [16, 17, 18, 19])
def test_long_passages_are_divided_and_nothing_is_lost(
    tmp_path: Path, word: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.corpus.passages, "LONGEST", longest)
    passages = index_files([written(tmp_path, text=word * 40)], unit="paragraph", on_bad="error").passages
    found = texts(passages)
    assert max(len(text.encode()) for text in found) <= longest
    assert "".join("".join(found).split()) == "".join((word * 40).split())
    assert len(found) <= 2 * 40 * len(word.encode()) / longest, "and not in crumbs"
    if word.startswith("word"):
        assert all(set(text.split()) == {"word"} for text in found)


def test_a_share_is_held_out_and_equal_texts_are_on_one_side(tmp_path: Path) -> None:
    file = written(tmp_path, text="\n\n".join(f"passage {i % 150}" for i in range(300)))
    dataset = opened(file)
    train, dev = texts(dataset.train), texts(dataset.evaluation["dev"])
    assert len(train) + len(dev) == 300
    assert 0.05 * 300 <= len(dev) <= 0.15 * 300
    assert not set(train) & set(dev)
    assert train == [text for text in (f"passage {i % 150}" for i in range(300)) if text in set(train)], "in order"
    assert set(dev) != set(texts(opened(file, split_seed=1).evaluation["dev"]))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("n", [2, 3, 50])
def test_held_out_is_the_share_but_never_none_nor_all(share: float, n: int) -> None:
    keys = np.array([key_of(b"%d" % i) for i in range(n)], dtype=np.uint64)
    held = held_out(keys, share, seed=0)
    assert held.sum() == min(max(1, round(share * n)), n - 1)
    order = np.random.default_rng(0).permutation(n)
    assert (held_out(keys[order], share, seed=0) == held[order]).all(), "whatever the order"


def test_texts_that_are_all_alike_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match="held out"):
        opened(written(tmp_path, text="same\n\nsame\n\nsame"))
    two = opened(written(tmp_path, text="same\n\nsame\n\nother"), validation="0.9")
    assert {len(two.train), len(two.evaluation["dev"])} == {1, 2}


def test_another_path_is_evaluated_on(tmp_path: Path) -> None:
    train, dev = many(tmp_path / "train"), many(tmp_path / "dev", 7)
    dataset = opened(train, validation=str(dev.parent))
    assert (len(dataset.train), len(dataset.evaluation["dev"])) == (200, 7)
    assert dataset.reading["validation"] == "dev" and dataset.reading["split_seed"] is None
    same = opened(train, validation=str(train))
    assert any("do not count" in note for note in same.notes)
    with pytest.raises(DataProblem, match="does not exist"):
        opened(train, validation=str(tmp_path / "no"))


def test_what_is_known_of_it(tmp_path: Path) -> None:
    task = TextCorpus(str(many(tmp_path, name="My texts!.txt")))
    dataset = task.open(DataRequest())
    assert task.spec.name == "corpus/My-texts"
    assert (task.spec.labelled, task.spec.num_classes, task.spec.metrics) == (False, 0, ())
    assert (dataset.source, dataset.revision) == ("file", "My texts!.txt")
    assert dataset.notes == (
        "corpus/My-texts: 180 paragraphs to train, 20 to evaluate (share 0.1, split seed 0), no labels",
    )
    assert str(tmp_path) not in str(dataset.reading), "a path is no part of a record"


def test_equal_content_is_equal_data_and_other_content_other(tmp_path: Path) -> None:
    one, moved = opened(many(tmp_path / "x")), opened(many(tmp_path / "y"))
    assert one.hash == moved.hash
    assert len({opened(many(tmp_path / str(n), n)).hash for n in (200, 199, 198)} | {one.hash}) == 3
    other = written(tmp_path / "z", text=many(tmp_path / "z").read_text().replace("passage 7 ", "passage 8 "))
    assert opened(other).hash != one.hash
    assert opened(many(tmp_path / "x"), unit="line").hash != one.hash


BAD = b"good one\n\nbad \xff one\nof two lines\n\nanother good\n\nthird\nand bad \xc3"


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    file = written(tmp_path, text=BAD)
    with pytest.raises(DataProblem) as error:
        opened(file)
    assert error.value.known == f"file: {file}, line 3, byte {BAD.index(bytes([255]))}"
    assert "data.on_bad=skip" in error.value.todo and error.value.exit_code == 3


def test_and_left_out_and_counted_on_demand(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path, text=BAD), on_bad="skip")
    assert sorted(texts([*dataset.train, *dataset.evaluation["dev"]])) == ["another good", "good one"]
    assert dataset.reading["texts"][0]["left_out"] == {"a.txt": 2}
    assert any("2 left out" in note and "line 3" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("text", "word"), [(b"", "nothing but blank"), (b" \n\n\t\n", "nothing but blank"), (b"\xff", "not UTF-8")]
)
def test_files_without_text_are_named(tmp_path: Path, text: bytes, word: str) -> None:
    with pytest.raises(DataProblem) as error:
        opened(written(tmp_path, text=text), on_bad="skip")
    assert "holds no text" in error.value.what and word in error.value.known and "a.txt" in error.value.known


def test_paths_that_hold_nothing_are_named(tmp_path: Path) -> None:
    written(tmp_path / "csv", "a.csv", "a")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.txt").symlink_to(tmp_path / "nowhere")
    for name, word in (("no", "does not exist"), ("csv", "no text in"), ("broken", "cannot be read")):
        with pytest.raises(DataProblem, match=word) as error:
            opened(tmp_path / name)
        assert name in str(error.value) and error.value.todo


def test_a_folder_that_refuses_to_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many(tmp_path / "locked")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataProblem, match=r"locked cannot be read(?s:.*)Permission denied"):
        opened(tmp_path)


def test_a_file_that_changes_under_way_is_noticed(tmp_path: Path) -> None:
    file = many(tmp_path)
    dataset = opened(file)
    file.write_text(file.read_text().replace("passage", "Passage"))
    with pytest.raises(DataProblem, match="changed"):
        list(dataset.train)
    file.unlink()
    with pytest.raises(DataProblem, match="changed"):
        dataset.train[0]  # type: ignore[index]


def test_directories_the_user_named(tmp_path: Path) -> None:
    many(tmp_path / "corpus")
    for request in (
        DataRequest(dirs=(("corpus", tmp_path / "corpus"),)),
        DataRequest(dirs=((None, tmp_path),), data="dir"),
        DataRequest(parent=tmp_path),
    ):
        assert TextCorpus("").open(request).source == "directory"
    assert TextCorpus("").open(DataRequest(parent=tmp_path, data="embedded")).source == "embedded"
    with pytest.raises(DataProblem, match="no directory"):
        TextCorpus("").open(DataRequest(data="dir"))


@pytest.mark.parametrize(
    ("options", "data", "argument"),
    [
        ({"hub": "a/b"}, "auto", "texts"),
        ({"hub": "a/b"}, "embedded", ""),
        ({"hub": "a/b"}, "dir", ""),
        ({}, "hub", ""),
        ({"column": "words"}, "auto", ""),
        ({"validation": "1.5"}, "auto", ""),
        ({"validation": "0"}, "auto", ""),
        ({"split_seed": -1}, "auto", ""),
    ],
)
def test_words_that_contradict_are_refused(options: dict[str, Any], data: Any, argument: str) -> None:
    with pytest.raises(UsageError) as error:
        TextCorpus(argument).open(DataRequest(config=CorpusConfig(**options), data=data))
    assert error.value.known and error.value.todo and isinstance(error.value, BenchError)


def test_every_option_of_what_the_passages_are_is_in_the_reading(tmp_path: Path) -> None:
    own = {option.name for option in fields(CorpusConfig)} - {"max_length"}
    assert own <= set(opened(many(tmp_path)).reading)
    assert own <= set(TextCorpus("").open(DataRequest()).reading)
