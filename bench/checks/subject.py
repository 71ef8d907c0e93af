"""What the checks of a method look at: the method on a small network and a few examples, built and trained at will."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bench.api.backbone import Backbone
from bench.api.batching import Batch
from bench.api.datamodule import StepDataModule
from bench.api.method import Method
from bench.api.network import Network
from bench.api.task import Task, TaskSpec
from bench.checks.networks import tasks_of
from bench.config.options import Value, options_of
from bench.config.sections import HeadConfig
from bench.core import registry
from bench.core.errors import UsageError
from bench.harness.planner import make_plan
from bench.harness.request import make_request
from bench.records.data import Dataset, Rows
from bench.records.results import TrainingResult
from bench.records.spec import RunSpec
from bench.training.callbacks import LossCurve, OnStep
from bench.training.trainer import build, fit, trained

FEW: dict[str, Value] = {
    **{"backbone.layers": 2, "backbone.hidden": 32, "backbone.heads": 2, "backbone.intermediate": 64},
    **{"backbone.width": 48, "backbone.depth": 3, "backbone.pool": "mean", "task.size": 16, "task.max_length": 32},
}
"""Options that make networks and tasks small."""
GAIN = 8.0
"""Factor on the matrices of the small transformers: with N(0, .02²) features would hardly depend on the input."""
TRAIN, EVALUATED = 34, 32
"""Examples. With batches of 16 the last batch of an epoch holds 2, so that some of its parts are empty."""
STEPS = 16
OTHER_SEED = 11


@dataclass(frozen=True, kw_only=True)
class SeededBackbone(Backbone):
    """A backbone whose weights are those of seed 0, whatever the run's: what else follows from the seed then shows.

    Attributes:
        gain: factor on every matrix.
    """

    gain: float = 1.0

    def load(self, *, task: TaskSpec, head: HeadConfig, seed: int) -> Network:
        """Load or build the network."""
        network = super().load(task=task, head=head, seed=0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(self.gain if parameter.ndim > 1 else 1)
        return network


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a run left behind.

    Attributes:
        losses: of every step.
        start: every parameter before the first step, by name.
        with_gradient: names of the parameters that had a gradient other than zero at some step.
    """

    method: Method
    data: StepDataModule[Any, Any]
    losses: list[float]
    start: dict[str, Tensor]
    with_gradient: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A method on one network and task."""

    spec: RunSpec
    task: Task
    dataset: Dataset
    backbone: Backbone

    @property
    def kind(self) -> type[Method]:
        return registry.load("methods", self.spec.method)

    def build(self, **changes: object) -> tuple[StepDataModule[Any, Any], Method]:
        """Return the data module, and the adapted method in evaluation mode; `changes` are fields of the RunSpec."""
        data, method, _ = build(self.spec.with_(**changes), self.task, self.dataset, self.backbone)
        return data, method.eval()

    def network(self) -> Network:
        """Return the backbone's network as it is without the method, in evaluation mode."""
        return self.backbone.load(task=self.task.spec, head=self.spec.options.head, seed=0).eval()

    def train(self, **changes: object) -> Training:
        """Train as a run does; nothing is written."""
        spec, losses, gradients = self.spec.with_(**changes), list[float](), _Gradients()
        start = {n: p.detach().clone() for n, p in self.build(**changes)[1].named_parameters()}
        curve = LossCurve(lambda step, loss: losses.append(loss))
        method, data = trained(spec, self.task, self.dataset, self.backbone, callbacks=[curve, gradients])
        seen = frozenset(gradients.seen)
        return Training(method=method.eval(), data=data, losses=losses, start=start, with_gradient=seen)

    def fit(self, spec: RunSpec, folder: Path, on_step: OnStep = lambda step, loss: None) -> TrainingResult:
        """Train and evaluate as a run does whose files are in `folder`."""
        return fit(spec, self.task, self.dataset, self.backbone, directory=folder, on_step=on_step)

    @cached_property
    def trained(self) -> Training:
        """The run that all checks share which only look at one."""
        return self.train()


class _Gradients(Callback):
    """Remembers which parameters had a gradient."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        named = ((name, p.grad) for name, p in pl_module.named_parameters() if name not in self.seen)
        self.seen |= {name for name, gradient in named if gradient is not None and bool(gradient.any())}


def evaluation_batch(data: StepDataModule[Any, Any]) -> Batch:
    """Return the first examples of the evaluation split as one batch."""
    split = data.evaluation[data.splits[0]]
    return data.collate(split, torch.arange(min(EVALUATED, len(split.lengths))).numpy())


@cache
def open_subject(
    method: str, backbone: str, *, settings: tuple[tuple[str, Value], ...] = (), small: bool, accelerator: str
) -> Subject | str:
    """Return a method on a network, or why it cannot be built there.

    Args:
        method: a registered name.
        backbone: as `--backbone` takes it.
        settings: options by name: `("method.rank", 4)`.
        small: give the backbone a few neurons.
        accelerator: where it trains.

    Raises:
        EnvironmentProblem: the backbone cannot be opened, or the method does not read what it reads.
    """
    tasks = tasks_of(method, backbone, small=small)
    options = {name: value for name, value in FEW.items() if small or not name.startswith("backbone.")}
    options |= {"backbone.tokenizer": letters().name} if small and backbone == "bert" else {}
    request = make_request(
        methods=method,
        tasks=tasks,
        backbones=backbone,
        data="embedded",
        bench_data="none",
        set=_known(options, tasks, backbone) | dict(settings),
        max_steps=STEPS,
        accelerator=accelerator,
    )
    run = make_plan(request).runs[0]
    gain = GAIN if small and run.task.spec.modality != "vector" else 1.0
    runtime = run.spec.options.runtime.changed(truncation="off")
    few = run.spec.with_(train_samples=TRAIN).with_options(runtime=runtime)
    subject = Subject(
        spec=few, task=run.task, dataset=_few(run.dataset), backbone=SeededBackbone(**vars(run.backbone), gain=gain)
    )
    try:
        subject.build()
    except UsageError as error:
        return error.line()
    return subject


@cache
def letters() -> tempfile.TemporaryDirectory[str]:
    """Write a tokenizer that knows letters and digits alone, in a folder that exists as long as this process."""
    from transformers import BertTokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    signs = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    folder = tempfile.TemporaryDirectory(prefix="bench-check-")
    file = Path(folder.name) / "words.txt"
    file.write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(file), vocab_file=str(file)).save_pretrained(folder.name)
    return folder


def _few(dataset: Dataset) -> Dataset:
    """Keep the first examples of texts, all of which every build would tokenise; others stay as they are."""

    def first(rows: Rows, count: int) -> Rows:
        return rows[:count] if isinstance(rows, Sequence) else rows

    evaluation = {name: first(rows, EVALUATED) for name, rows in dataset.evaluation.items()}
    return replace(dataset, train=first(dataset.train, TRAIN), evaluation=evaluation)


def _known(options: dict[str, Value], tasks: Sequence[str], backbone: str) -> dict[str, Value]:
    """Keep the options that the backbone or one of the tasks has."""
    configs = [("task", registry.load_config("tasks", registry.family(task))) for task in tasks]
    configs += [("backbone", registry.load_config("backbones", registry.opener(backbone)))]
    named = {f"{space}.{key}" for space, config in configs for key in options_of(config)}
    return {name: value for name, value in options.items() if name in named}
