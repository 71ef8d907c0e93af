"""The embedded corpus: docstrings as `inspect` has them, the same bytes every time, nothing imported."""

from __future__ import annotations

import argparse
import configparser
import inspect
import json.decoder
import os
import subprocess
import sys
import textwrap
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import DataProblem, UsageError
from bench.records.data import DataRequest, Dataset
from tasks.corpus import docstrings as docstrings_module
from tasks.corpus.docstrings import KINDS, docstrings, gather, revision
from tasks.corpus.task import CorpusConfig, TextCorpus


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return TextCorpus("").open(DataRequest())


def by_inspect(module: types.ModuleType) -> set[tuple[str, str]]:
    """Docstrings of a module that is written in Python, by looking at its living objects."""
    found = {(inspect.getdoc(module) or "", "module")}
    todo: list[Any] = [vars(module)]
    while todo:
        for thing in todo.pop().values():
            thing = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "__func__", thing))
            if getattr(thing, "__module__", None) != module.__name__ or not isinstance(
                thing, type | types.FunctionType
            ):
                continue
            if thing.__doc__:
                in_class = "." in thing.__qualname__ and "<locals>" not in thing.__qualname__.rpartition(".")[0]
                kind = "class" if isinstance(thing, type) else "method" if in_class else "function"
                found.add((inspect.cleandoc(thing.__doc__), kind))
            if isinstance(thing, type):
                todo.append(vars(thing))
    return {(text, kind) for text, kind in found if text.strip()}


@pytest.mark.parametrize(
    "module", [json.decoder, textwrap, argparse, configparser, subprocess], ids=lambda m: m.__name__
)
def test_texts_and_labels_are_those_of_inspect(module: types.ModuleType) -> None:
    assert module.__file__ is not None
    found = set(docstrings(Path(module.__file__).read_bytes()))
    living = by_inspect(module)
    assert len(living) > 5
    assert living <= found, "all that lives was found, with its kind"
    # what was found besides is defined where no object is left: in functions, in branches that were not taken
    assert len(found - living) <= 0.2 * len(found)


def test_kinds_by_where_they_stand() -> None:
    source = b'''"""m"""
def f():
    """f"""
    def g(): "g"
    class C:
        """C"""
        if True:
            async def h(self):
                """h"""
                def k(): "k"
try: pass
except OSError:
    class D: "D"
match 1:
    case 1:
        def n(): "n"
def empty(): "  "
def none(): pass
'''
    found = dict(docstrings(source))
    assert found == {
        "m": "module",
        "f": "function",
        "g": "function",
        "C": "class",
        "h": "method",
        "k": "function",
        "D": "class",
        "n": "function",
    }
    assert list(docstrings(b"print 'no Python of this version'")) == []


def test_the_same_bytes_twice_and_in_another_process(tmp_path: Path) -> None:
    one, again = gather(tmp_path / "one"), gather(tmp_path / "two")
    assert one == again
    code = (
        "import sys, pathlib\n"
        "from tasks.corpus.docstrings import gather, revision\n"
        "found = revision(gather(pathlib.Path(sys.argv[1])))\n"
        "print(found, *{'turtle', 'antigravity', 'this', 'tkinter'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "three")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[2],
    )
    assert out.stdout.split() == [revision(one)], "the same texts, and nothing of the library was imported"
    assert gather(tmp_path / "one") == one, "and from the cache"
    assert len(list((tmp_path / "one").rglob("*.json"))) == 1


def test_each_text_once_in_order(dataset: Dataset) -> None:
    rows = [*dataset.train, *dataset.evaluation["dev"]]
    texts = [row.text for row in rows]
    assert len(set(texts)) == len(texts) > 5000
    assert all(text.strip() for text in texts)
    assert [row.text for row in dataset.train] == sorted(row.text for row in dataset.train)


def test_a_tenth_of_every_kind_is_held_out(dataset: Dataset) -> None:
    train, dev = (Counter(row.label for row in rows) for rows in (dataset.train, dataset.evaluation["dev"]))
    assert set(train) == set(dev) == set(range(len(KINDS)))
    for label in train:
        assert dev[label] == round(0.1 * (train[label] + dev[label]))
    assert (dataset.source, len(dataset.revision)) == ("embedded", 12)
    assert dataset.reading["labels"] == list(KINDS)


def test_split_seed_and_share_draw_others(dataset: Dataset) -> None:
    other = TextCorpus("").open(DataRequest(config=CorpusConfig(split_seed=1)))
    half = TextCorpus("").open(DataRequest(config=CorpusConfig(validation="0.5")))
    assert other.hash != dataset.hash != half.hash
    assert other.revision == dataset.revision == half.revision
    dev = {row.text for row in dataset.evaluation["dev"]}
    shared = dev & {row.text for row in other.evaluation["dev"]}
    assert len(shared) < 0.2 * len(dev)
    assert dev <= {row.text for row in half.evaluation["dev"]}, "a larger share holds out what a smaller one does"
    assert TextCorpus("").open(DataRequest()).hash == dataset.hash


def test_other_texts_to_evaluate_on_are_refused() -> None:
    with pytest.raises(UsageError, match="no other texts"):
        TextCorpus("").open(DataRequest(config=CorpusConfig(validation="dev.txt")))


def test_a_python_without_source_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(docstrings_module.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataProblem) as error:
        gather(tmp_path)
    assert str(tmp_path) in error.value.known and "corpus:PATH" in error.value.todo


def test_a_broken_cache_is_gathered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "json.py").write_text('"""one"""')
    monkeypatch.setattr(docstrings_module.sysconfig, "get_path", lambda name: str(tmp_path / "lib"))
    assert gather(tmp_path) == [("one", "module")]
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text("[1")
    assert gather(tmp_path) == [("one", "module")]
    (tmp_path / "lib" / "json.py").write_text('"""two, longer"""')
    assert gather(tmp_path) == [("two, longer", "module")], "a changed library is another key"
