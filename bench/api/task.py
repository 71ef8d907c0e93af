"""What a task is: a description, a reader and the DataModule that training plugs into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.config.sections import TaskConfig
from bench.records.data import DataRequest, Dataset

if TYPE_CHECKING:
    from lightning import LightningDataModule

    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """Name, version, labels and metrics of one task.

    Attributes:
        name: such as `glue/rte`.
        version: raised whenever the same data would give another score; of a user's own data the hash.
        modality: what the backbone must read.
        num_classes: number of classes; 0 is regression.
        shape: of one input, channels first: (C, H, W) of an image, (n,) of a vector; empty for text.
        targets: numbers that a regression predicts per example.
        labelled: False where there is nothing to predict, only text or images to learn from.
        metrics: names from `bench.api.metrics`, computed on every evaluation split.
        primary: the metrics whose mean is the primary value, on the first evaluation split.
        higher_is_better: direction of the primary metric.
        note: a caveat shown beside scores.
    """

    name: str
    version: int | str
    modality: Literal["text", "image", "vector"]
    num_classes: int
    metrics: tuple[str, ...]
    primary: tuple[str, ...]
    higher_is_better: bool = True
    note: str = ""
    shape: tuple[int, ...] = ()
    targets: int = 1
    labelled: bool = True

    @property
    def primary_name(self) -> str:
        """`matthews`, or `accuracy+f1` for the mean of two."""
        return "+".join(self.primary)


class Task(ABC):
    """A task: of a suite (`GLUE("rte")`), on its own (`Digits("")`) or of a file (`Table(FILE)`).

    Modules that define tasks stay free of torch, so that a wrong file is named before anything heavy is imported;
    `datamodule` imports what it needs.
    """

    members: ClassVar[tuple[str, ...]] = ()
    """Names of the tasks of a suite (`rte` of `glue/rte`); empty for a task on its own."""
    argument: ClassVar[str] = ""
    """What stands behind the colon where the task is named so (`FILE` in `table:FILE`); empty where it takes none."""
    modality: ClassVar[Literal["text", "image", "vector"]] = "text"
    """What all its tasks read; it decides which backbone is the default."""
    Config: ClassVar[type] = TaskConfig
    """Options, `--set task.key=value`: those of texts, or a dataclass of its own, which may add to them."""
    spec: TaskSpec
    """Known at once, or, where the data decide (number of classes), once `open` has read them."""

    @abstractmethod
    def open(self, request: DataRequest) -> Dataset:
        """Read and check all splits.

        Raises:
            AbsentTask: the directory is a good one but does not hold this task.
            DataProblem: nothing is there, or a file is malformed; the error names file and line.
        """

    @abstractmethod
    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> LightningDataModule:
        """The LightningDataModule that feeds `spec`'s run."""
