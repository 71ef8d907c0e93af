"""Which runs a leaderboard is of."""

from __future__ import annotations

import pytest

from bench.core.errors import UsageError
from leaderboard.tables.filters import filter_runs, lookup, parse


@pytest.fixture
def records(make_record):
    def run(method, task, seed, **more):
        spec = {"method": method, "task": task, "seed": seed, **more.pop("spec", {})}
        return make_record(spec=spec, **more)

    return [
        run("lora", "glue/cola", 0),
        run("lora", "glue/cola", 1, spec={"options": {"method": {"rank": 16}}}, lr=3e-3),
        run("full", "glue/rte", 0, spec={"options": {"method": {"rank": None}}}, cost={"device": "H200"}),
        run("deeplora", "digits", 2, backbone={"name": "vit"}, source={"kind": "directory", "revision": "MNIST"}),
        run("peft:vera", "glue/cola", 0, state="failed", error={"what": "x", "known": "", "todo": ""}, metrics=None),
    ]


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"tasks": ("glue",)}, [0, 1, 2, 4]),
        ({"tasks": ("glue/rte", "digits")}, [2, 3]),
        ({"tasks": ("glue/c*",)}, [0, 1, 4]),
        ({"methods": ("lora", "full")}, [0, 1, 2]),
        ({"methods": ("*lora",)}, [0, 1, 3]),
        ({"methods": ("peft:*",)}, [4]),
        ({"backbones": ("vit",)}, [3]),
        ({"sources": ("directory",)}, [3]),
        ({"sources": ("MNIST",)}, [3]),
        ({"where": ("seed<1",)}, [0, 2, 4]),
        ({"where": ("seed>=1",)}, [1, 3]),
        ({"where": ("method.rank=16",)}, [1]),
        ({"where": ("method.rank!=16",)}, [0, 2, 3, 4]),
        ({"where": ("method.rank<=8",)}, [0, 3, 4]),
        ({"where": ("lr=3e-3",)}, [1]),
        ({"where": ("lr=0.003",)}, [1]),
        ({"where": ("state=failed",)}, [4]),
        ({"where": ("cost.device=H200",)}, [2]),
        ({"where": ("head.trainable=true", "seed=2")}, [3]),
        ({"where": ("optim.name=adamw", "method=lora")}, [0, 1]),
        ({"tasks": ("glue",), "methods": ("lora",), "where": ("seed=1",)}, [1]),
    ],
)
def test_what_is_kept(records, selection, kept):
    assert filter_runs(records, **selection) == [records[i] for i in kept]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"methods": ("lorra",)}, ["--methods: no run matches 'lorra'", "lora", "Did you mean 'lora'?"]),
        ({"tasks": ("glue/wnli",)}, ["glue/wnli", "glue/cola"]),
        ({"backbones": ("bert",)}, ["--backbone", "vit"]),
        ({"methods": ("lora",), "tasks": ("digits",)}, ["no run matches", "--methods lora", "--tasks digits"]),
        ({"where": ("seed=9",)}, ["no run matches", "--where 'seed=9'"]),
        ({"where": ("seed",)}, ["'seed' is not a condition", "= != <"]),
        ({"where": ("",)}, ["is not a condition"]),
    ],
)
def test_errors_have_three_parts(records, selection, expected):
    with pytest.raises(UsageError) as caught:
        filter_runs(records, **selection)
    error = caught.value
    text = f"{error.what}\n{error.known}\n{error.todo}"
    assert [word for word in expected if word not in text] == []
    assert error.known and error.todo


def test_nothing_there_is_no_error():
    assert filter_runs([], methods=("lora",)) == []


def test_fields_by_their_name_in_set_and_by_their_place(records):
    first = records[0]
    assert lookup(first, "method.rank") == 8 and lookup(first, "spec.options.method.rank") == 8
    assert lookup(first, "params.trainable") == 68_000 and lookup(first, "metrics.primary.value") == 0.41
    assert lookup(first, "method") == "lora" and lookup(first, "method.none") is None and lookup(first, "a.b.c") is None


@pytest.mark.parametrize("text", ["method.rank=8", "lr>=1e-3", "a!=", "a = b c ", "backbone=a<b"])
def test_a_condition_is_read_at_its_first_sign(text):
    found = parse(text)
    assert found.name and found.sign in ("=", "!=", ">=")
    assert found.value == {"a!=": "", "a = b c ": "b c", "backbone=a<b": "a<b"}.get(text, found.value)
