"""Classes of pictures: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, from a directory or the hub; test is scored.

A directory holds class folders below train/ and test/, one tar of such, idx files (MNIST and its kin), CIFAR's binary
version, or Parquet files as `datasets` saves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bench.api.task import TaskSpec
from bench.config.options import option, options_of
from bench.records.data import DataRequest, Dataset
from tasks.images.base import ImageConfig, ImageTask


class Known(ImageTask):
    """A data set by its name in `tasks.images.vision_schema`."""

    key: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def __init__(self, _: str = "") -> None:
        self.spec = TaskSpec(
            name=self.key,
            version=1,
            modality="image",
            num_classes=100 if self.key == "cifar100" else 10,
            metrics=("accuracy", "macro_f1"),
            primary=("accuracy",),
        )

    def open(self, request: DataRequest) -> Dataset:
        """Read and check every picture of train and test.

        Raises:
            AbsentTask: a directory of the user's is a good one but does not hold this task.
            DataProblem: nothing is there, or a picture or file is broken; the error names it.
        """
        from tasks.images.sources import open_vision
        from tasks.images.vision_schema import KNOWN

        dataset, store = open_vision(KNOWN[self.key], request, request.config or self.Config())
        lossy = "JPEG" in store.facts["formats"]
        return self.settle(dataset, note=f"{self.title} (JPEG)" if lossy else "")


class MNIST(Known):
    """Handwritten digits, 28×28 grey, 60000 and 10000 (LeCun, Cortes and Burges)."""

    key: ClassVar[str] = "mnist"
    title: ClassVar[str] = "MNIST"


class FashionMNIST(Known):
    """Pieces of clothing, 28×28 grey, 60000 and 10000 (arXiv 1708.07747)."""

    key: ClassVar[str] = "fashion-mnist"
    title: ClassVar[str] = "Fashion-MNIST"


@dataclass(frozen=True, kw_only=True)
class CIFARConfig(ImageConfig):
    """Pictures of things that can be mirrored and moved."""

    augment: Literal["none", "flip", "crop", "flip-crop", "trivial"] = option(
        "flip-crop", options_of(ImageConfig)["augment"].help
    )


class CIFAR10(Known):
    """Animals and vehicles, 32×32 colour, 50000 and 10000 (Krizhevsky 2009)."""

    key: ClassVar[str] = "cifar10"
    title: ClassVar[str] = "CIFAR-10"
    Config: ClassVar[type] = CIFARConfig


class CIFAR100(Known):
    """A hundred kinds of things (the fine labels), 32×32 colour, 50000 and 10000 (Krizhevsky 2009)."""

    key: ClassVar[str] = "cifar100"
    title: ClassVar[str] = "CIFAR-100"
    Config: ClassVar[type] = CIFARConfig
