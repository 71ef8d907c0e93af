"""What is run: the user's request, and the frozen, hashed specification of one run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bench.config.help import describe
from bench.core.registry import family, opener
from bench.records.data import DataRequest

PROTOCOL = 1
"""Raised whenever the same specification would give other results."""

Precision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]
Track = Literal["off", "wandb", "tensorboard", "csv", "mlflow"]
Option = str | int | float | bool | None

DEFAULT_BACKBONES = {"text": "minilm", "image": "vit", "vector": "dln"}
"""Modality → what reads it without a network."""
NOT_IDENTITY = frozenset({"accelerator", "devices", "track", "runtime", "out", "start"})
"""Fields of a RunSpec that say where and how it runs, not what: they do not enter `run_id`."""
LATER = frozenset({"allocation", "penalty", "spectra"})
"""Namespaces that came later: where they are empty a run does what it did before them, and keeps its `run_id`."""
LATER_OPTIONS: dict[str, dict[str, Option]] = {
    "optim": {"name": "adamw", "momentum": 0.9},
    "head": {"loss": "auto"},
}
"""Options that came later, with the value at which a run does what it did before them."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `bench run` was asked, names resolved by nobody yet.

    Attributes:
        backbones: `--backbone`; none: each task takes the one of `DEFAULT_BACKBONES` that reads it.
        lrs: `--lr`; several make a cell each, or are the candidates with `select`.
        select: choose the learning rate on a split held out from train.
        select_on: task whose train split decides; None: each cell's own.
        settings: `--set key=value` as typed.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    backbones: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    data: DataRequest = field(default_factory=DataRequest)
    max_steps: int | None = None
    epochs: float | None = None
    train_samples: int | None = None
    batch_size: int = 16
    lrs: tuple[float, ...] = ()
    select: bool = False
    select_on: str | None = None
    settings: tuple[str, ...] = ()
    precision: Precision = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    track: Track = "off"
    out: Path = Path("runs")
    strict: bool = False
    retry: bool = False

    @property
    def all_backbones(self) -> tuple[str, ...]:
        """The backbones that are asked for, or those that read the tasks."""
        reads = [describe("tasks", name).attributes.get("modality", "text") for name in self.families]
        return self.backbones or tuple(dict.fromkeys(DEFAULT_BACKBONES[modality] for modality in reads))

    @property
    def openers(self) -> tuple[str, ...]:
        """Registered names of these backbones."""
        return tuple(dict.fromkeys(map(opener, self.all_backbones)))

    @property
    def families(self) -> tuple[str, ...]:
        """Registered names of all tasks that are asked for."""
        names = [*self.tasks, *([self.select_on] if self.select_on else [])]
        return tuple(dict.fromkeys(map(family, names)))


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
