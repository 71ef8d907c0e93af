"""What `bench run` was asked for: names and settings, before anything is looked up or opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.config.help import describe
from bench.core.registry import family, opener
from bench.records.data import DataRequest
from bench.records.spec import Precision, Track

DEFAULT_BACKBONES = {"text": "minilm", "image": "vit", "vector": "dln"}
"""Modality → what reads it without a network."""


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
