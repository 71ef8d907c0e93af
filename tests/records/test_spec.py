"""The identity of a run: every field decides it but those that only say where and how; JSON keeps all of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import asdict
from typing import Any

import pytest

import bench.records.spec
from bench.config.sections import AllocationConfig, PenaltyConfig, SpectraConfig
from bench.records.spec import NAMESPACES, NOT_IDENTITY, RunSpec

BASE = RunSpec(
    method="lora",
    task="glue/cola",
    backbone="minilm",
    lr=1e-3,
    max_steps=150,
    method_options={"rank": 8, "target": "qv"},
    head={"trainable": True},
    optim={"eps": 1e-8},
    task_options={"max_length": 128},
    backbone_options={"revision": "main"},
    runtime={"micro_batch": 0},
    allocation=asdict(AllocationConfig()),
    penalty=asdict(PenaltyConfig()),
    spectra=asdict(SpectraConfig()),
)
OTHER: dict[str, Any] = {
    "method": "deeplora",
    "task": "glue/rte",
    "backbone": "bert",
    "seed": 1,
    "lr": 1.1e-3,
    "select": (1e-3, 3e-3),
    "select_on": "glue/sst2",
    "holdout": 10,
    "max_steps": 151,
    "epochs": 1.0,
    "batch_size": 32,
    "train_samples": 16,
    "precision": "64-true",
    "method_options": {"rank": 4, "target": "qv"},
    "head": {"trainable": False},
    "optim": {"eps": 1e-6},
    "task_options": {"max_length": 64},
    "backbone_options": {"revision": "v2"},
    "allocation": asdict(AllocationConfig(policy="depth")),
    "runtime": {"micro_batch": 4},
    "accelerator": "cpu",
    "devices": 2,
    "track": "wandb",
    "out": "elsewhere",
    "start": "adapter",
    "penalty": asdict(PenaltyConfig(nuclear=1e-3)),
    "spectra": asdict(SpectraConfig(of="weights")),
}
FIELDS = [f.name for f in dataclasses.fields(RunSpec)]
SILENT = NOT_IDENTITY | {"runtime"}


def test_every_field_has_another_value_here() -> None:
    assert list(OTHER) == FIELDS
    assert all(OTHER[name] != getattr(BASE, name) for name in FIELDS)
    assert set(FIELDS) > NOT_IDENTITY
    assert sorted(NOT_IDENTITY) == ["accelerator", "devices", "out", "start", "track"]


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_enters_the_id_unless_it_is_named(name: str) -> None:
    changed = BASE.with_(**{name: OTHER[name]})
    assert (changed.run_id("d", "w") == BASE.run_id("d", "w")) == (name in SILENT)
    assert (changed.group_id("d", "w") == BASE.group_id("d", "w")) == (name in SILENT | {"seed"})


def test_all_changes_give_ids_of_their_own() -> None:
    changed = [BASE.with_(**{name: OTHER[name]}) for name in FIELDS if name not in SILENT]
    ids = {spec.run_id("d", "w") for spec in [BASE, *changed]}
    assert len(ids) == len(changed) + 1


@pytest.mark.parametrize("space", ["method_options", "head", "optim", "task_options", "backbone_options"])
def test_an_option_more_is_another_run(space: str) -> None:
    assert BASE.with_(**{space: {**getattr(BASE, space), "more": None}}).run_id("d", "w") != BASE.run_id("d", "w")
    assert BASE.with_(**{space: {}}).run_id("d", "w") != BASE.run_id("d", "w")


def test_the_order_of_options_does_not_matter() -> None:
    turned = BASE.with_(method_options=dict(reversed(BASE.method_options.items())))
    assert turned.run_id("d", "w") == BASE.run_id("d", "w")


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
    spec = BASE
    fields = {k: v for k, v in spec.to_json().items() if k not in NOT_IDENTITY}
    del fields["options"]["runtime"]
    material = {**fields, "protocol": bench.records.spec.PROTOCOL, "data": "d", "weights": "w"}
    text = json.dumps(material, sort_keys=True, separators=(",", ":"))
    assert spec.run_id("d", "w") == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", [None, *FIELDS])
def test_json_gives_the_same_specification_back(name: str | None) -> None:
    spec = BASE.with_(**{name: OTHER[name]}) if name else BASE
    back = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    assert isinstance(back.select, tuple)
    assert back.run_id("d", "w") == spec.run_id("d", "w")
    assert set(spec.to_json()["options"]) == set(NAMESPACES)


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
