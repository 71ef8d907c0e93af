"""The frozen, hashed specification of one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

PROTOCOL = 1
"""Raised whenever the same specification would give other results."""

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
Track = Literal["off", "wandb", "tensorboard", "csv", "mlflow"]
Option = str | int | float | bool | None

NOT_IDENTITY = frozenset({"accelerator", "devices", "track", "runtime", "out", "start"})
"""Fields of a RunSpec that say where and how it runs, not what: they do not enter `run_id`."""
LATER = frozenset({"allocation", "penalty", "spectra"})
"""Namespaces that came later: where they are empty a run does what it did before them, and keeps its `run_id`."""
LATER_OPTIONS: dict[str, dict[str, Option]] = {
    "optim": {"name": "adamw", "momentum": 0.9},
    "head": {"loss": "auto"},
}
"""Options that came later, with the value at which a run does what it did before them."""


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
        return deciding(asdict(self))

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
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunSpec:
        """The RunSpec that `to_json` wrote."""
        fields: dict[str, Any] = {**data, "select": tuple(data["select"])}
        return cls(**fields)


def deciding(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of a specification that decide the result."""
    found = {name: value for name, value in fields.items() if name not in NOT_IDENTITY and (value or name not in LATER)}
    for space, before in LATER_OPTIONS.items():
        found[space] = {key: value for key, value in found.get(space, {}).items() if before.get(key, _NEVER) != value}
    return found


_NEVER = object()


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
