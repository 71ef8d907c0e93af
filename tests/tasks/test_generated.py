"""The generated GLUE: bytes, balance, no leaks, no contradictions."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import product
from statistics import mean

import pytest

from bench.records.data import Example
from tasks.glue import generated
from tasks.glue.generated import TASKS, VERSION
from tasks.glue.generated.mnli import QUANTIFIERS, Relation, judge

HASHES = {
    "cola": "e4bbf62d5f6e2268a5bb87ab02afdd8a42eeef2a1a2185264cbf25d4b06bfb58",
    "sst2": "17d0c8d8dee6b8f8d1097f5074edaa5638557081f3afca2cec89d033b5459169",
    "mrpc": "65fc21f76bbf53f9a639756141caf6b54c0a5424c90f1dc5db236938bad11c27",
    "qqp": "26174a4625de7225071132f527a0fe6b8671b4df914983e6e080ef54dc8a3dc6",
    "stsb": "2f5a5d5fd15c694007d57fb713041dbb2724e433cb8df03fc84053bd7303bdf3",
    "mnli": "90e3efe5f7ccdb0e1a068209dae8b27dea112a79fb9e93aa5c0fb6480f0f5d0f",
    "qnli": "c0522e45b9fd826ca7be7812c2ce8ff170298ce80359879143c887a8fa7b99ec",
    "rte": "ca74e72d23ab7f1ab74b7a77d9e14bee933883f3bd0c3fed6fd20760bbb0b214",
    "wnli": "6da6994ae94c4bdeaed56fbaff5ddc7102d793d240a195c46e3245333174e51b",
}
"""A change here is a change of every embedded score: raise VERSION with it."""

POSITIVE = {"cola": 0.70, "sst2": 0.55, "mrpc": 0.67, "qqp": 0.37, "qnli": 0.50, "rte": 0.50, "wnli": 0.49}
POSITIVE_DEV = {**POSITIVE, "sst2": 0.51, "mrpc": 0.68, "rte": 0.47, "wnli": 0.44}


@cache
def generate(task: str) -> dict[str, list[Example]]:
    """Read only."""
    return generated.generate(task)


def digest(task: str) -> str:
    """sha256 over the splits as JSON."""
    return hashlib.sha256(json.dumps(generate(task), ensure_ascii=False).encode()).hexdigest()


@pytest.mark.parametrize("task", TASKS)
def test_bytes_are_pinned(task: str) -> None:
    assert digest(task) == HASHES[task], f"{task} changed: raise VERSION (now {VERSION}) and pin the new hash"


def test_another_process_with_another_hash_seed_gives_the_same_bytes() -> None:
    code = (
        "import hashlib, json; from tasks.glue.generated import TASKS, generate; "
        "print({t: hashlib.sha256(json.dumps(generate(t), ensure_ascii=False).encode()).hexdigest() for t in TASKS})"
    )
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        out = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
        assert out.stdout.strip() == str(HASHES)


@pytest.mark.parametrize("task", TASKS)
def test_schema_and_sizes(task: str) -> None:
    splits = generate(task)
    small = task == "wnli"
    dev = ["dev_matched", "dev_mismatched"] if task == "mnli" else ["dev"]
    assert list(splits) == ["train", *dev]
    assert len(splits["train"]) == (635 if small else 2000)
    assert all(len(splits[name]) == (71 if small else 256) for name in dev)
    for row in (row for rows in splits.values() for row in rows):
        assert isinstance(row, Example)
        assert isinstance(row.label, float if task == "stsb" else int)
        assert (row.text_pair is None) == (task in ("cola", "sst2"))
        for text in (row.text, row.text_pair or row.text):
            assert re.fullmatch(r"[A-Z][A-Za-z0-9,' ]*[.?]", text), text
            assert "  " not in text and 3 <= len(text.split()) <= 24, text


@pytest.mark.parametrize("task", POSITIVE)
def test_balance_of_two_labels(task: str) -> None:
    splits = generate(task)
    assert mean(row.label for row in splits["train"]) == pytest.approx(POSITIVE[task], abs=0.01)
    assert mean(row.label for row in splits["dev"]) == pytest.approx(POSITIVE_DEV[task], abs=0.01)
    assert {row.label for rows in splits.values() for row in rows} == {0, 1}


def test_balance_of_three_labels_and_scores() -> None:
    for rows in generate("mnli").values():
        assert [count / len(rows) for count in Counter(row.label for row in rows).values()] == pytest.approx(
            [1 / 3] * 3, abs=0.01
        )
    for rows in generate("stsb").values():
        scores = [row.label for row in rows]
        assert min(scores) == 0.0 and max(scores) == 5.0
        assert all(score * 4 == int(score * 4) for score in scores)
        assert all(0.1 < mean(low <= score < low + 1 for score in scores) < 0.3 for low in range(5))


@pytest.mark.parametrize("task", TASKS)
def test_no_input_appears_twice(task: str) -> None:
    rows = [row for rows in generate(task).values() for row in rows]
    inputs = [(row.text, row.text_pair) for row in rows]
    assert len(set(inputs)) == len(inputs)
    assert all(one != two for one, two in inputs)


@pytest.mark.parametrize("task", ["mrpc", "qqp", "stsb"])
def test_the_other_order_never_carries_another_label(task: str) -> None:
    labels = {(row.text, str(row.text_pair)): row.label for rows in generate(task).values() for row in rows}
    assert all(labels.get((two, one), label) == label for (one, two), label in labels.items())


def test_mismatched_genre_is_another_vocabulary() -> None:
    splits = generate("mnli")

    def content(name: str) -> set[str]:
        return {word for row in splits[name] for word in re.findall(r"[a-z]{6,}", f"{row.text} {row.text_pair}")}

    assert content("dev_matched") <= content("train")
    assert len(content("dev_mismatched") - content("train")) > 20


def _worlds(nouns: Relation, predicates: Relation) -> list[tuple[tuple[bool, ...], ...]]:
    """Every world of one or two individuals (a witness for each sentence), in or out of A, B, P, Q as related."""

    def keeps(left: bool, right: bool, relation: Relation) -> bool:
        return {"equal": left == right, "sub": left <= right, "super": left >= right, "free": True}[relation]

    kinds = [k for k in product((False, True), repeat=4) if keeps(k[0], k[1], nouns) and keeps(k[2], k[3], predicates)]
    worlds = [world for size in (1, 2) for world in product(kinds, repeat=size)]
    return [world for world in worlds if any(x[0] for x in world) and any(x[1] for x in world)]


def test_inference_labels_agree_with_counting_worlds() -> None:
    def holds(quantifier: str, world: tuple[tuple[bool, ...], ...], noun: int, predicate: int) -> bool:
        inside = [x[predicate] for x in world if x[noun]]
        return {"all": all(inside), "some": any(inside), "no": not any(inside), "not all": not all(inside)}[quantifier]

    relations: tuple[Relation, ...] = ("equal", "sub", "super", "free")
    for nouns, predicates in product(relations, relations):
        worlds = _worlds(nouns, predicates)
        for before, after in product(QUANTIFIERS, QUANTIFIERS):
            outcomes = {holds(after, world, 1, 3) for world in worlds if holds(before, world, 0, 2)}
            expected = {frozenset({True}): 0, frozenset({True, False}): 1, frozenset({False}): 2}[frozenset(outcomes)]
            assert judge(before, after, nouns=nouns, predicates=predicates) == expected, (before, after, nouns)
