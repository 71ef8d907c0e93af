"""Shared by all tests: which are skipped by default, and a valid record to start from."""

from __future__ import annotations

import copy
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.core import registry
from bench.records import consistency
from bench.records.record import Record
from bench.records.spec import RunOptions, RunSpec
from bench.records.spec import ids as run_ids

pytest_plugins = ["lab", "pytester"]
"""Fixtures that train small runs, in tests/support/lab.py."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip `slow` tests unless `-m` speaks of them."""
    if "slow" in (config.option.markexpr or ""):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run it with `pytest -m slow`"))


RECORD: dict[str, Any] = {
    "schema": 2,
    "state": "done",
    "error": None,
    "warnings": [],
    "lr": 1e-3,
    "task": {"name": "glue/cola", "version": 1, "modality": "text", "num_classes": 2, "note": ""},
    "backbone": {"name": "all-MiniLM-L6-v2", "parameters": 22_713_216, "weights_hash": "c" * 64, "pooling": "mean"},
    "source": {
        "kind": "embedded",
        "revision": "1",
        "data_hash": "d" * 64,
        "train_examples": 1000,
        "evaluation_examples": {"dev": 200},
    },
    "metrics": {
        "primary": {"name": "matthews", "value": 0.41, "split": "dev", "higher_is_better": True, "n": 200},
        "all": {"dev": {"matthews": 0.41, "accuracy": 0.7}},
    },
    "params": {"total": 22_780_000, "trainable": 68_000, "head": 770, "stored_bytes": 272_000},
    "selection": None,
    "ranks": [
        {
            "layer": f"encoder.layer.{i}.attention.self.query",
            "shape": [384, 384],
            "nominal": 8,
            "stable": 1.5,
            "effective": 2.0 + i,
            "energy90": 2,
            "norm": 0.7,
            "how": "factors",
        }
        for i in range(2)
    ],
    "cost": {
        "steps": 150,
        "samples": 4800,
        "train_s": 38.2,
        "eval_s": 1.1,
        "tracking_s": 0.0,
        "peak_memory_bytes": None,
        "cache_bytes": 0,
        "optimizer_bytes": 544_000,
        "device": "cpu",
        "devices": 1,
        "resumed_at": [],
    },
    "curve": [{"step": 0, "loss": 0.69}, {"step": 149, "loss": 0.41}],
    "provenance": {
        "created": "2025-01-01T00:00:00+00:00",
        "command": ["bench", "run"],
        "git": None,
        "packages": {"torch": "2.6.0"},
        "python": "3.11.9",
        "platform": "Linux x86_64",
    },
    "tracking": None,
}
"""All but the specification and the two ids, which follow from it."""


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; a dict goes into a dict, everything else replaces."""
    for key, value in changes.items():
        old = base.get(key)
        base[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else copy.deepcopy(value)
    return base


def _record_json(**overrides: Any) -> dict[str, Any]:
    options = RunOptions(method=registry.load_config("methods", "lora")(rank=8, target="all-linear"))
    spec = RunSpec(
        method="lora", task="glue/cola", backbone="minilm", lr=1e-3, max_steps=150, options=options
    ).to_json()
    ids = {key: overrides.pop(key, None) for key in ("run_id", "group_id")}
    record = _merge(copy.deepcopy(RECORD) | {"spec": spec}, overrides)
    record["task"]["name"] = overrides.get("task", {}).get("name", record["spec"]["task"])
    found = run_ids(record["spec"], record["source"]["data_hash"], record["backbone"]["weights_hash"])
    record["run_id"], record["group_id"] = (ids[key] or one for key, one in zip(ids, found, strict=True))
    if record["metrics"] and "all" not in overrides.get("metrics", {}):
        primary = record["metrics"]["primary"]
        record["metrics"]["all"].setdefault(primary["split"], {})[primary["name"]] = primary["value"]
        record["source"]["evaluation_examples"][primary["split"]] = primary["n"]
    return record


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Builds a record: `make_record(spec={"seed": 1}, state="failed", metrics=None)`.

    Dicts are merged into the default ones, other values replace them; run_id and group_id follow from spec, source and
    backbone unless given, and `metrics.all` has the primary metric.
    """
    return lambda **overrides: msgspec.convert(_record_json(**overrides), Record)


@pytest.fixture
def record_json() -> Callable[..., dict[str, Any]]:
    """The same as JSON values, which need not be valid."""
    return _record_json


@pytest.fixture
def any_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records may have ids that do not follow from their content."""
    monkeypatch.setattr(consistency, "_ids", lambda record: ())


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `--backbone` takes: a random BERT of 2 layers and width 32 whose tokenizer knows letters only."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("backbone") / "tiny-bert"
    folder.mkdir()
    signs = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{s}" for s in string.ascii_lowercase)]
    (folder / "words.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "words.txt"), vocab_file=str(folder / "words.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lively_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with matrices eight times as large: as it is, its features hardly depend on the text."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("lively") / "lively-bert"
    model = AutoModel.from_pretrained(tiny_bert)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share no cache with the user and never wait for a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
