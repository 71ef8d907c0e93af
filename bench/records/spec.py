"""The frozen, hashed specification of one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from bench.config.sections import AllocationConfig, PenaltyConfig, SpectraConfig

PROTOCOL = 2
"""Raised whenever the same specification would give other results."""

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
Track = Literal["off", "wandb", "tensorboard", "csv", "mlflow"]
Option = str | int | float | bool | None

NOT_IDENTITY = frozenset({"accelerator", "devices", "track", "out", "start"})
"""Fields that say where and how a run is executed: they do not enter `run_id`, nor does the namespace `runtime`."""
NAMESPACES = ("method", "task", "backbone", "head", "optim", "penalty", "allocation", "spectra", "runtime")
"""Keys of `options` in JSON, each a namespace of `--set`."""
_DEFAULTS = {"penalty": PenaltyConfig, "allocation": AllocationConfig, "spectra": SpectraConfig}
_OWN = {"method": "method_options", "task": "task_options", "backbone": "backbone_options"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One run, completely: method, task, backbone, seed, budget and every option with its default filled in.

    Attributes:
        lr: learning rate; None where `select` chooses it.
        select: candidate learning rates.
        select_on: cell whose held-out train split decides between them.
        holdout: number of training examples cut off (by seed) and evaluated on instead of dev; 0 evaluates on dev.
        start: folder of the adapter to start from; its content's hash is the method's option `start`.
        task_options: options of the task, without those that only say what the examples are (`Corpus.reading`).
        method_options, head, optim, backbone_options, runtime: the other namespaces of `--set`.
        allocation, penalty, spectra: namespaces too; empty where rank is uniform, where nothing is penalised, and where
            spectra are taken as they are by default.
    """

    method: str
    task: str
    backbone: str
    seed: int = 0
    lr: float | None = None
    select: tuple[float, ...] = ()
    select_on: str | None = None
    holdout: int = 0
    max_steps: int | None = None
    epochs: float | None = None
    batch_size: int = 16
    train_samples: int | None = None
    precision: Precision = "32-true"
    method_options: Mapping[str, Option] = field(default_factory=dict)
    head: Mapping[str, Option] = field(default_factory=dict)
    optim: Mapping[str, Option] = field(default_factory=dict)
    task_options: Mapping[str, Option] = field(default_factory=dict)
    backbone_options: Mapping[str, Option] = field(default_factory=dict)
    allocation: Mapping[str, Option] = field(default_factory=dict)
    runtime: Mapping[str, Option] = field(default_factory=dict)
    accelerator: str = "auto"
    devices: int = 1
    track: Track = "off"
    out: str = "runs"
    start: str | None = None
    penalty: Mapping[str, Option] = field(default_factory=dict)
    spectra: Mapping[str, Option] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """Every field that decides the result, as plain JSON values."""
        return deciding(self.to_json())

    def run_id(self, data_hash: str, weights_hash: str) -> str:
        """16 hex digits that name this run: the specification, the protocol, the bytes of data and weights."""
        return _digest({**self.identity(), "protocol": PROTOCOL, "data": data_hash, "weights": weights_hash})

    def group_id(self, data_hash: str, weights_hash: str) -> str:
        """The same without the seed: runs that differ only by seed share it."""
        identity = self.identity()
        del identity["seed"]
        return _digest({**identity, "protocol": PROTOCOL, "data": data_hash, "weights": weights_hash})

    def with_(self, **changes: Any) -> RunSpec:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the same RunSpec back."""
        fields = asdict(self)
        options = {space: fields.pop(_OWN.get(space, space)) for space in NAMESPACES}
        options |= {space: {**asdict(kind()), **options[space]} for space, kind in _DEFAULTS.items()}
        return json.loads(json.dumps({**fields, "options": options}))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunSpec:
        """The RunSpec that `to_json` wrote."""
        options: dict[str, Any] = {_OWN.get(space, space): data["options"][space] for space in NAMESPACES}
        fields: dict[str, Any] = dict(data) | options | {"select": tuple(data["select"])}
        del fields["options"]
        return cls(**fields)


def deciding(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of a specification, as JSON values, that decide the result."""
    found = {name: value for name, value in fields.items() if name not in NOT_IDENTITY}
    found["options"] = {space: values for space, values in found["options"].items() if space != "runtime"}
    return found


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
