"""The identity of a run: every field decides it but those that only say where and how; JSON keeps all of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any

import pytest

import bench.records.spec
from bench.backbones.text_encoders import BERTConfig
from bench.config.options import Config
from bench.config.sections import (
    AllocationConfig,
    BackboneConfig,
    HeadConfig,
    OptimConfig,
    PenaltyConfig,
    RuntimeConfig,
    SpectraConfig,
    TaskConfig,
)
from bench.records.spec import NOT_IDENTITY, Candidates, RunOptions, RunSpec
from methods.deeplora.config import DeepLoRAConfig
from methods.lora.config import LoRAConfig
from tasks.table.task import TableConfig

BASE = RunSpec(
    method="lora",
    task="glue/cola",
    backbone="minilm",
    lr=1e-3,
    max_steps=150,
    options=RunOptions(method=LoRAConfig(), task=TaskConfig(), backbone=BackboneConfig()),
)
OTHER: dict[str, Any] = {
    "method": "deeplora",
    "task": "glue/rte",
    "backbone": "bert",
    "seed": 1,
    "lr": 1.1e-3,
    "select": (1e-3, 3e-3),
    "space": (Candidates("method.rank", (4, 8)),),
    "trials": 20,
    "select_on": "glue/sst2",
    "widen": 3,
    "holdout": 10,
    "max_steps": 151,
    "epochs": 1.0,
    "batch_size": 32,
    "train_samples": 16,
    "evaluate": "epoch",
    "precision": "64-true",
    "accelerator": "cpu",
    "devices": 2,
    "track": "wandb",
    "out": "elsewhere",
    "start": "adapter",
}
OPTIONS: dict[str, Config] = {
    "method": LoRAConfig(rank=4),
    "task": TaskConfig(max_length=64),
    "backbone": BackboneConfig(revision="v2"),
    "head": HeadConfig(trainable=False),
    "optim": OptimConfig(eps=1e-6),
    "penalty": PenaltyConfig(nuclear=1e-3),
    "allocation": AllocationConfig(policy="depth"),
    "spectra": SpectraConfig(of="weights"),
    "runtime": RuntimeConfig(micro_batch=4),
}
CHANGED = {
    **{name: BASE.with_(**{name: value}) for name, value in OTHER.items()},
    **{f"options.{space}": BASE.with_options(**{space: config}) for space, config in OPTIONS.items()},
}
SILENT = NOT_IDENTITY | {"options.runtime"}


def test_every_field_has_another_value_here() -> None:
    assert [*OTHER, "options", "data_options"] == [f.name for f in dataclasses.fields(RunSpec)]
    assert [*OPTIONS] == [f.name for f in dataclasses.fields(RunOptions)]
    assert all(changed != BASE for changed in CHANGED.values())
    assert sorted(NOT_IDENTITY) == ["accelerator", "devices", "out", "start", "track"]


@pytest.mark.parametrize("name", CHANGED)
def test_each_field_enters_the_id_unless_it_is_named(name: str) -> None:
    changed = CHANGED[name]
    assert (changed.run_id("d", "w") == BASE.run_id("d", "w")) == (name in SILENT)
    assert (changed.group_id("d", "w") == BASE.group_id("d", "w")) == (name in SILENT | {"seed"})


def test_all_changes_give_ids_of_their_own() -> None:
    changed = [spec for name, spec in CHANGED.items() if name not in SILENT]
    assert len({spec.run_id("d", "w") for spec in [BASE, *changed]}) == len(changed) + 1


def test_options_that_the_data_speak_for_do_not_enter() -> None:
    given = [TableConfig(text=text, max_length=length) for text, length in (("a", 128), ("b", 128), ("a", 64))]
    specs = [
        BASE.with_(task="table/train", data_options=frozenset({"text"})).with_options(task=config) for config in given
    ]
    ids = [spec.run_id("d", "w") for spec in specs]
    assert ids[0] == ids[1] != ids[2]
    assert "text" not in specs[0].to_json()["options"]["task"]
    assert specs[0].to_json()["options"]["task"]["max_length"] == 128


@pytest.mark.parametrize("name", ["run_id", "group_id"])
def test_data_weights_and_protocol_enter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = getattr(BASE, name)
    ids = [make("d", "w"), make("e", "w"), make("d", "x"), make("w", "d")]
    monkeypatch.setattr(bench.records.spec, "PROTOCOL", bench.records.spec.PROTOCOL + 1)
    ids.append(make("d", "w"))
    assert len(set(ids)) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)


def test_the_id_is_the_hash_of_canonical_json() -> None:
    """The same in every process and on every machine."""
    spec = BASE.with_options(allocation=OPTIONS["allocation"])
    fields = {k: v for k, v in spec.to_json().items() if k not in NOT_IDENTITY}
    del fields["options"]["runtime"]
    material = {**fields, "protocol": bench.records.spec.PROTOCOL, "data": "d", "weights": "w"}
    text = json.dumps(material, sort_keys=True, separators=(",", ":"))
    assert spec.run_id("d", "w") == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", [None, *CHANGED])
def test_json_gives_the_same_specification_back(name: str | None) -> None:
    spec = CHANGED[name] if name else BASE
    if name == "method":
        spec = spec.with_options(method=DeepLoRAConfig(depth=4))
    if name == "backbone":
        spec = spec.with_options(backbone=BERTConfig(layers=2))
    back = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    assert isinstance(back.select, tuple)
    assert back.run_id("d", "w") == spec.run_id("d", "w")


@pytest.mark.parametrize("lr", [0.1 + 0.2, 1e-45, 3e-4])
def test_json_keeps_every_digit(lr: float) -> None:
    spec = BASE.with_(lr=lr, select=(lr,))
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_number_that_is_none_has_no_id() -> None:
    with pytest.raises(ValueError, match="JSON"):
        BASE.with_(lr=float("nan")).run_id("d", "w")


def test_a_specification_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.seed = 1  # type: ignore[misc]
    assert BASE.with_(seed=1).seed == 1 and BASE.seed == 0
