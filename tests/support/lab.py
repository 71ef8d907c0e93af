"""What contract tests share: a small task in memory, and real runs of it on the tiny BERT."""

from __future__ import annotations

import os
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bench.training.trainer as training
from bench.api.backbone import Backbone
from bench.api.method import Method
from bench.api.task import TaskSpec
from bench.backbones.text_encoders import from_folder
from bench.config.sections import AllocationConfig, HeadConfig, OptimConfig, PenaltyConfig, RuntimeConfig, TaskConfig
from bench.core import registry
from bench.records.data import DataRequest, Dataset, Example
from bench.records.results import TrainingResult
from bench.records.spec import RunOptions, RunSpec
from tasks.text.task import TextTask

SPACES = ("options", "head", "optim", "penalty", "backbone", "allocation", "runtime")
"""What `Lab.spec` takes: `options` are the method's."""
ACCELERATOR = os.environ.get("BENCH_TEST_ACCELERATOR", "cpu")
"""Where the runs of contract tests train; `gpu` says whether the methods hold there too."""

CLASSES = TaskSpec(
    name="toy/classes",
    version=1,
    modality="text",
    num_classes=2,
    metrics=("matthews", "accuracy"),
    primary=("accuracy",),
)
SCORES = TaskSpec(
    name="toy/scores", version=1, modality="text", num_classes=0, metrics=("pearson",), primary=("pearson",)
)


def examples(n: int, *, seed: int, scores: bool) -> list[Example]:
    """Texts of letters; the class says whether most of them come before n. Or pairs, scored by that share, 0 to 5."""
    draw = random.Random(seed)
    found: list[Example] = []
    for _ in range(n):
        rate = draw.random()
        halves = string.ascii_lowercase[:13], string.ascii_lowercase[13:]
        letters = [draw.choice(halves[draw.random() > rate]) for _ in range(draw.randint(5, 24))]
        share = sum(letter <= "m" for letter in letters) / len(letters)
        middle = len(letters) // 2
        if scores:
            found.append(Example(" ".join(letters[:middle]), " ".join(letters[middle:]), 5 * share))
        else:
            found.append(Example(" ".join(letters), None, int(share > 0.5)))
    return found


class Toy(TextTask):
    """A task that is already in memory."""

    def __init__(self, spec: TaskSpec, dataset: Dataset) -> None:
        self.spec, self.dataset = spec, dataset

    def open(self, request: DataRequest) -> Dataset:
        return self.dataset


TOY = registry.Entry("lab:Toy")
"""What a RunSpec needs of `toy/…` to be read from JSON; no command lists it."""


@pytest.fixture
def toy_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the toy tasks by name."""
    monkeypatch.setitem(registry.entries("tasks"), "toy", TOY)


def toy(spec: TaskSpec, *, train: int = 34, dev: int = 48) -> Toy:
    """34 training examples: with batches of 16 the last batch of an epoch holds 2."""
    scores = spec.num_classes == 0
    dataset = Dataset(
        train=examples(train, seed=1, scores=scores),
        evaluation={"dev": examples(dev, seed=2, scores=scores)},
        source="embedded",
        revision="test",
    )
    return Toy(spec, dataset)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left behind. `start` holds every parameter as it was before the first step."""

    result: TrainingResult
    losses: list[float]
    data: Any
    method: Method
    start: dict[str, Tensor]
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Specifications, methods and runs on one backbone."""

    backbone: Backbone
    folder: Callable[[], Path]
    tasks: dict[str, Toy] = field(default_factory=lambda: {s.name: toy(s) for s in (CLASSES, SCORES)})

    def spec(self, method: str, **changes: Any) -> RunSpec:
        """A method's defaults, 20 steps of 16, no truncation; the namespaces, such as `options`, change some."""
        kind = registry.load_config("methods", method)
        given = {name: changes.pop(name, {}) for name in SPACES}
        options = RunOptions(
            method=kind(**given["options"]),
            task=TaskConfig(),
            backbone=self.backbone.config.changed(**given["backbone"]),
            head=HeadConfig(**given["head"]),
            optim=OptimConfig(**given["optim"]),
            penalty=PenaltyConfig(**given["penalty"]),
            allocation=AllocationConfig(**given["allocation"]),
            runtime=RuntimeConfig(**{"truncation": "off"} | given["runtime"]),
        )
        fields: dict[str, Any] = {
            "task": CLASSES.name,
            "lr": kind.learning_rate,
            "max_steps": 20,
            "batch_size": 16,
            "accelerator": ACCELERATOR,
            "options": options,
        }
        return RunSpec(method=method, backbone=self.backbone.name, **fields | changes)

    def build(self, spec: RunSpec) -> tuple[Any, Method]:
        """DataModule and adapted method, untrained."""
        task = self.tasks[spec.task]
        return training.build(spec, task, task.dataset, self._backbone(spec))[:2]

    def _backbone(self, spec: RunSpec) -> Backbone:
        """The backbone with the specification's options."""
        return replace(self.backbone, config=spec.options.backbone)

    def run(
        self, spec: RunSpec, directory: Path | None = None, on_step: Callable[[int], None] = lambda step: None
    ) -> Run:
        """Train and evaluate as `bench run` does; `on_step` hears every step."""
        task, directory, losses, kept = self.tasks[spec.task], directory or self.folder(), [], {}
        original = training.build

        def build(*args: Any) -> tuple[Any, Method, int]:
            kept["data"], kept["method"], parameters = original(*args)
            kept["start"] = {n: p.detach().clone() for n, p in kept["method"].named_parameters()}
            return kept["data"], kept["method"], parameters

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "build", build)
            result = training.fit(
                spec,
                task,
                task.dataset,
                self._backbone(spec),
                directory=directory,
                on_step=lambda step, loss: (losses.append(loss), on_step(step)),
            )
        return Run(result=result, losses=losses, directory=directory, **kept)


@pytest.fixture(scope="session")
def lab(lively_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A small BERT and two toy tasks: `toy/classes` (single texts) and `toy/scores` (pairs, regression)."""
    return Lab(backbone=from_folder("lively-bert", lively_bert), folder=lambda: tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Lab]:
    """A `Lab` on another backbone or other tasks: `make_lab(backbone=…, tasks={…})`."""
    return lambda **parts: Lab(folder=lambda: tmp_path_factory.mktemp("run"), **parts)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
