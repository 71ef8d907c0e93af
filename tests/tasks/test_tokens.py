"""Tokens: what the tokenizer says, cut and taken right, and a cache that never says anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, EsmTokenizer

from bench.core.errors import EnvironmentProblem
from bench.records.data import Example
from tasks.text import tokens as tokens_module
from tasks.text.tokens import Tokens, tokenise

SINGLES = [Example("a bc def", None, 0), Example("漢", None, 1), Example("the quick brown fox jumps", None, 1)]
PAIRS = [Example("a bc", "d e f g", 2.5), Example("one two three four", "x", 0.2), Example("y", "", 5.0)]


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


class Absent:
    """A tokenizer that must not be asked."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("tokenised again")


def same(one: Tokens, other: Tokens) -> bool:
    names = ("ids", "types", "starts", "lengths", "labels", "cut", "unknown")
    pairs = [(getattr(one, n), getattr(other, n)) for n in names]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("rows", [SINGLES, PAIRS], ids=["singles", "pairs"])
@pytest.mark.parametrize("max_length", [128, 8, 5])
@pytest.mark.parametrize(("chunk", "characters"), [(4096, 1 << 20), (2, 1 << 20), (4096, 12), (4096, 1)])
def test_rows_are_what_the_tokenizer_says_one_by_one(
    tokenizer: Any, rows: list[Example], max_length: int, chunk: int, characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "CHUNK", chunk)
    monkeypatch.setattr(tokens_module, "CHARACTERS", characters)
    tokens = tokenise(rows, tokenizer, key="k", max_length=max_length)
    for i, row in enumerate(rows):
        second = None if row.text_pair is None else [row.text_pair]
        want = tokenizer([row.text], second, truncation=True, max_length=max_length)
        ids, types = tokens.row(i)
        assert [ids.tolist()] == want["input_ids"]
        assert [types.tolist()] == want["token_type_ids"]
        assert len(ids) == tokens.lengths[i] <= max_length
    assert tokens.labels.tolist() == [row.label for row in rows]
    whole = [len(tokenizer(row.text, row.text_pair)["input_ids"]) for row in rows]
    assert tokens.cut.tolist() == [length > max_length for length in whole]
    assert tokens.unknown.tolist() == [
        tokenizer.convert_ids_to_tokens(tokens.row(i)[0].tolist()).count("[UNK]") for i in range(len(rows))
    ]
    assert tokens.take(np.array([2, 0])).cut.tolist() == [tokens.cut[2], tokens.cut[0]]
    assert max(tokens.lengths) == max_length or max_length == 128, "something was cut"
    assert (tokens.types.max() == 1) == (rows is PAIRS)


def test_labels_keep_every_digit(tokenizer: Any) -> None:
    rows = [Example("a", "b", value) for value in (0.1 + 0.2, 1 / 3, 4.999999999)]
    for _ in range(2):  # fresh, and from the cache
        assert tokenise(rows, tokenizer, key="k", max_length=8).labels.tolist() == [row.label for row in rows]


def test_the_cache_gives_what_was_computed(tokenizer: Any, cache: Path) -> None:
    fresh = tokenise(PAIRS, tokenizer, key="k", max_length=16)
    assert len(list(cache.iterdir())) == 1, "one file, and no temporary one"
    assert same(tokenise(PAIRS, Absent(), key="k", max_length=16), fresh)


def test_another_key_or_length_is_another_entry(tokenizer: Any, cache: Path) -> None:
    long = tokenise(SINGLES, tokenizer, key="k", max_length=64)
    short = tokenise(SINGLES, tokenizer, key="k", max_length=4)
    other = tokenise(PAIRS, tokenizer, key="l", max_length=64)
    assert max(short.lengths) == 4 < max(long.lengths)
    assert len(list(cache.iterdir())) == 3
    assert same(tokenise([], Absent(), key="k", max_length=64), long)
    assert same(tokenise([], Absent(), key="k", max_length=4), short)
    assert same(tokenise([], Absent(), key="l", max_length=64), other)


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "short by one", "other tensors", "folder"])
def test_a_broken_file_is_computed_again(tokenizer: Any, cache: Path, damage: str) -> None:
    from safetensors.numpy import save_file

    fresh = tokenise(PAIRS, tokenizer, key="k", max_length=16)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.unlink()  # and not cut short in its place: `fresh` is mapped from it
    if damage == "folder":
        file.mkdir()
    elif damage == "other tensors":
        save_file({"ids": np.zeros(3)}, file)
    else:
        broken = {"empty": b"", "garbage": b"\xff" * 99, "half": whole[: len(whole) // 2], "short by one": whole[:-1]}
        file.write_bytes(broken[damage])
    assert same(tokenise(PAIRS, tokenizer, key="k", max_length=16), fresh)
    if damage != "folder":
        assert file.read_bytes() == whole, "and mended"
        assert same(tokenise(PAIRS, Absent(), key="k", max_length=16), fresh)


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "file"))
    assert tokenise(SINGLES, tokenizer, key="k", max_length=16).labels.tolist() == [0, 1, 1]


def test_rows_that_may_not_fit_into_memory_need_the_cache(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem) as error:
        tokenise(iter(SINGLES), tokenizer, key="k", max_length=16)
    assert error.value.known
    assert "LOWRANK_BENCH_CACHE" in error.value.todo


def test_tokens_are_mapped_and_taking_some_copies_none(tokenizer: Any, cache: Path) -> None:
    tokens = tokenise(PAIRS, tokenizer, key="k", max_length=16)
    for ids in (tokens.ids, tokens.take(np.array([2, 0])).ids):
        assert isinstance(ids, np.memmap)
        assert not ids.flags.writeable
    (file,) = cache.iterdir()
    from safetensors.numpy import load_file

    stored = load_file(file)
    assert stored["ids"].tolist() == tokens.ids.tolist()
    assert stored["types"].tolist() == tokens.types.tolist()
    assert stored["lengths"].tolist() == tokens.lengths.tolist()
    assert stored["labels"].tolist() == tokens.labels.tolist()


def test_no_examples_are_no_tokens(tokenizer: Any) -> None:
    for _ in range(2):  # fresh, and from the cache
        tokens = tokenise([], tokenizer, key="none", max_length=16)
        assert len(tokens.labels) == len(tokens.lengths) == len(tokens.ids) == 0


@pytest.mark.parametrize("index", [[0], [2, 0], [1, 1], [0, 2], []])
def test_taking_some_keeps_each_whole(tokenizer: Any, index: list[int]) -> None:
    tokens = tokenise(PAIRS, tokenizer, key="k", max_length=16)
    taken = tokens.take(np.array(index, dtype=np.int64))
    assert taken.labels.tolist() == [PAIRS[i].label for i in index]
    assert taken.lengths.tolist() == [int(tokens.lengths[i]) for i in index]
    for new, old in enumerate(index):
        assert [part.tolist() for part in taken.row(new)] == [part.tolist() for part in tokens.row(old)]


def test_taking_all_is_the_same(tokenizer: Any) -> None:
    tokens = tokenise(PAIRS, tokenizer, key="k", max_length=16)
    assert same(tokens.take(np.arange(3)), tokens)


def test_taking_all_in_another_order_reorders(tokenizer: Any) -> None:
    tokens = tokenise(PAIRS, tokenizer, key="k", max_length=16)
    assert tokens.take(np.array([2, 0, 1])).labels.tolist() == [5.0, 2.5, 0.2]


@pytest.mark.parametrize("pairs", [False, True])
def test_a_tokenizer_in_python_says_the_same(tmp_path: Path, pairs: bool) -> None:
    """It has no list of encodings that says what was cut off."""
    (tmp_path / "vocab.txt").write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *"abcdefgh"]))
    tokenizer = EsmTokenizer(str(tmp_path / "vocab.txt"))
    assert not tokenizer.is_fast
    rows = [Example("abc"[:n] * 3, "h" if pairs else None, 0) for n in (1, 2, 3)]
    tokens = tokenise(rows, tokenizer, key="k", max_length=8)
    whole = [len(tokenizer(row.text, row.text_pair)["input_ids"]) for row in rows]
    assert tokens.lengths.tolist() == [min(length, 8) for length in whole]
    assert tokens.cut.tolist() == [length > 8 for length in whole] and any(tokens.cut) and not all(tokens.cut)
