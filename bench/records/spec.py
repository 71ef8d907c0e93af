"""The frozen, hashed specification of one run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from bench.config.options import Config, Value
from bench.config.sections import (
    SECTIONS,
    AllocationConfig,
    BackboneConfig,
    HeadConfig,
    MethodConfig,
    OptimConfig,
    PenaltyConfig,
    RuntimeConfig,
    SpectraConfig,
    TaskConfig,
)
from bench.core import registry

C = TypeVar("C", bound=Config)

PROTOCOL = 3
"""Raised whenever the same specification would give other results."""

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
Track = Literal["off", "wandb", "tensorboard", "csv", "mlflow"]
Course = int | Literal["epoch"] | None
"""When dev is evaluated during training: after every so many steps, after each pass over train, or never."""

NOT_IDENTITY = frozenset({"accelerator", "devices", "track", "out", "start"})
"""Fields of a RunSpec that say where and how it runs, not what: they do not enter `run_id`; nor does
`options.runtime`."""
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
"""Writes the JSON that is hashed: the same value always gives the same text."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Every option of a run, by namespace: what `--set namespace.key=value` changes."""

    method: MethodConfig = field(default_factory=MethodConfig)
    task: Config = field(default_factory=TaskConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def task_as(self, kind: type[C]) -> C:
        """Return the task's options as the class that the task declares."""
        assert isinstance(self.task, kind), f"the task has {type(self.task).__name__}"
        return self.task

    def to_json(self) -> dict[str, dict[str, Value]]:
        """Return namespace → key → value."""
        return {space.name: getattr(self, space.name).to_json() for space in fields(self)}


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run, completely: method, task, backbone, seed, budget and every option.

    `bench.records.schema.StoredSpec` describes the fields.

    Attributes:
        data_options: options of the task that only say what the examples are (`Dataset.reading`). The hash of the data
            speaks for them, so they are neither part of the identity nor of the JSON.
    """

    method: str
    task: str
    backbone: str
    seed: int = 0
    lr: float | None = None
    select: tuple[float, ...] = ()
    select_on: str | None = None
    widen: int = 0
    holdout: int = 0
    max_steps: int | None = None
    epochs: float | None = None
    batch_size: int = 16
    train_samples: int | None = None
    evaluate: Course = None
    precision: Precision = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    track: Track = "off"
    out: str = "runs"
    start: str | None = None
    options: RunOptions = RunOptions()
    data_options: frozenset[str] = frozenset()

    @property
    def processes(self) -> int:
        """Devices over all nodes, each with a process."""
        return self.devices * self.options.runtime.nodes

    def steps(self, examples: int) -> int:
        """Return the optimiser steps of a run that trains on so many examples."""
        return self.max_steps or math.ceil((self.epochs or 1) * math.ceil(examples / self.batch_size))

    def run_id(self, data_hash: str, weights_hash: str) -> str:
        """Return the 16 hex digits that name this run: specification, protocol, bytes of data and weights."""
        return ids(self.to_json(), data_hash, weights_hash)[0]

    def group_id(self, data_hash: str, weights_hash: str) -> str:
        """Return the same hash without the seed: runs that differ only by seed share it."""
        return ids(self.to_json(), data_hash, weights_hash)[1]

    def with_(self, **changes: object) -> RunSpec:
        return replace(self, **changes)

    def on_one_device(self) -> RunSpec:
        """Return the same run, trained by one process."""
        return self.with_(devices=1).with_options(runtime=self.options.runtime.changed(nodes=1, strategy="auto"))

    def with_options(self, **changes: Config) -> RunSpec:
        return replace(self, options=replace(self.options, **changes))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, from which `from_json` makes an equal RunSpec."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data_options"}
        options = self.options.to_json()
        options["task"] = {key: value for key, value in options["task"].items() if key not in self.data_options}
        return {**values, "select": list(self.select), "options": options}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, backbone: type[BackboneConfig] | None = None) -> RunSpec:
        """Make the RunSpec that `to_json` wrote; an option that is missing has its default.

        Args:
            backbone: class of the backbone's options; None: that of the registered backbone.
        """
        stored = data["options"]
        classes: dict[str, type[Any]] = {
            "method": registry.load_config("methods", data["method"]),
            "task": registry.load_config("tasks", registry.family(data["task"])),
            "backbone": backbone or registry.load_config("backbones", registry.opener(data["backbone"])),
            **{space: config for space, config in SECTIONS.items() if space != "data"},
        }
        options = RunOptions(**{space: config(**stored.get(space, {})) for space, config in classes.items()})
        left_out = frozenset(f.name for f in fields(options.task) if f.name not in stored["task"])
        given: dict[str, Any] = {**data, "select": tuple(data["select"]), "options": options, "data_options": left_out}
        return cls(**given)


def deciding(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return those fields of a specification, as JSON values, that decide the result."""
    options = {space: values for space, values in spec["options"].items() if space != "runtime"}
    return {**{name: value for name, value in spec.items() if name not in NOT_IDENTITY}, "options": options}


def ids(spec: Mapping[str, Any], data_hash: str, weights_hash: str) -> tuple[str, str]:
    """Return `run_id` and `group_id` of a specification, as JSON values, on these bytes of data and weights."""
    whole = {**deciding(spec), "protocol": PROTOCOL, "data": data_hash, "weights": weights_hash}
    members = {name: f'"{name}":{_CANONICAL.encode(value)}' for name, value in sorted(whole.items())}
    run_id = _digest(members)
    del members["seed"]
    return run_id, _digest(members)


def _digest(members: Mapping[str, str]) -> str:
    """Return the first 16 hex digits of the sha256 of an object of these members, each of them JSON."""
    return hashlib.sha256(f"{{{','.join(members.values())}}}".encode()).hexdigest()[:16]
