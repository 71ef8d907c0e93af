"""The base class of tasks: a description, a reader of the data, and the data module of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.config.options import Config
from bench.config.sections import TaskConfig
from bench.core.errors import UsageError
from bench.records.data import DataRequest, Dataset

Modality = Literal["text", "image", "vector"]

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.api.datamodule import StepDataModule
    from bench.api.inputs import InputRequest, NewInputs
    from bench.records.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """Name, version, labels and metrics of one task.

    Attributes:
        name: such as `glue/rte`.
        version: raised whenever the same data would give another score; of a user's own data, the hash of the files.
        modality: what the backbone must be able to read.
        num_classes: 0 is regression.
        labels: names of the classes in order; empty where they have none but their numbers.
        multilabel: whether an example has any number of the classes, none included; labels are then (N, num_classes).
        balanced: whether the loss weights classes inversely to their frequency in training (`StepDataModule`).
        shape: of one input, channels first: (C, H, W) of an image, (n,) of a vector; empty for text.
        targets: numbers that a regression predicts for each example.
        labelled: False where there is nothing to predict, only texts or images to learn from.
        metrics: names from `bench.api.metrics`, computed on every evaluation split.
        primary: the metrics whose mean is the primary value, on the first evaluation split.
        higher_is_better: direction of the primary value.
        note: a caveat shown beside scores.
    """

    name: str
    version: int | str
    modality: Modality
    num_classes: int
    metrics: tuple[str, ...]
    primary: tuple[str, ...]
    higher_is_better: bool = True
    note: str = ""
    shape: tuple[int, ...] = ()
    targets: int = 1
    multilabel: bool = False
    balanced: bool = False
    labelled: bool = True
    labels: tuple[str, ...] = ()

    @property
    def primary_name(self) -> str:
        """`matthews`, or `accuracy+f1` for the mean of two."""
        return "+".join(self.primary)


class Task(ABC):
    """A task: of a suite (`GLUE("rte")`), on its own (`Digits("")`) or of a file (`Table(FILE)`).

    Modules that define tasks import no torch, so that errors in the data are reported before it is loaded;
    `datamodule` imports what it needs.

    `tasks/images/digits.py` is a short one, and `tests/packaging/test_entry_points.py` has one of another package.
    """

    members: ClassVar[tuple[str, ...]] = ()
    """Names of the tasks of a suite (`rte` of `glue/rte`); empty for a task on its own."""
    argument: ClassVar[str] = ""
    """Name of the argument after the colon (`FILE` of `table:FILE`); empty if the task takes none."""
    modality: ClassVar[Modality] = "text"
    """Kind of input of all its tasks; it decides which backbone is the default."""
    Config: ClassVar[type] = TaskConfig
    """Options, `--set task.key=value`: those of texts, or a Config of its own, which may add to them."""
    InputConfig: ClassVar[type[Config]] = Config
    """Options of reading new examples, `bench predict --set task.key=value`."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """A file whose name ends so is understood as the argument: `--task FILE`."""
    spec: TaskSpec
    """Set by the constructor, or by `open` where the data decide it (number of classes)."""

    @abstractmethod
    def open(self, request: DataRequest) -> Dataset:
        """Read and check all splits.

        Raises:
            AbsentTask: the directory holds other tasks of the suite, but not this one.
            DataProblem: there are no data, or a file is malformed; the error names file and line.
        """

    @abstractmethod
    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> StepDataModule[Any, Any]:
        """Return the data module of a run."""

    @classmethod
    def new_inputs(cls, request: InputRequest) -> NewInputs:
        """Open new examples of the task of a finished run; tasks of texts and images have it.

        Raises:
            UsageError: an option does not fit the file, or nothing new can be read for this task.
            DataProblem: there is no such file.
        """
        raise UsageError(
            f"{request.task.name} has no way to read new examples",
            "`bench predict` reads texts and images",
            "Give the task's class a method new_inputs.",
        )
