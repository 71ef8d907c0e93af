"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, from a directory or the hub.

A directory holds class folders below train/ and test/, one tar of such, idx files (MNIST and Fashion-MNIST), CIFAR's
binary version, or Parquet files as `datasets` saves them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.config.options import option, options_of
from bench.core.errors import DataProblem
from bench.core.hub import HubDataset, HubUnavailable
from bench.records.data import DataRequest, Dataset, SourceKind
from tasks.images.base import ImageConfig, ImageTask, image_task_spec
from tasks.io.directories import Wanted, find_folder, name_of

if TYPE_CHECKING:
    from tasks.images.reading.source import Source

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR100_NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


class PublishedImageTask(ImageTask):
    """A published dataset, scored on its test split: read from a directory of the user, or else from the hub.

    Attributes:
        location: how its folder is found.
        hub: where it is on the hub.
        classes: names in order; empty where the data name them.
        lossless: its title where the originals are lossless: a note then marks JPEGs.
        most_train: if train has more images, this many are drawn, and a note says so; 0 takes all.
    """

    location: Wanted
    hub: HubDataset
    classes: tuple[str, ...] = ()
    lossless: str = ""
    most_train: int = 0

    def open(self, request: DataRequest) -> Dataset:
        from tasks.images.reading.dataset import load_images
        from tasks.images.reading.prepare import Preparation

        name, config = self.spec.name, request.config_as(self.Config)
        source, kind, revision = self._source(request)
        preparation = Preparation(
            size=config.size, mode=config.mode, classes=self.classes or source.classes, most_train=self.most_train
        )
        dataset, found = load_images(
            name, [source], preparation, request, kind=kind, revision=revision, needed=("train", "test")
        )
        note = f"{self.lossless} (JPEG)" if self.lossless and "JPEG" in dataset.reading["formats"] else ""
        if 0 < self.most_train < found:
            note = f"{self.most_train} training images drawn, not the paper's"
            line = f"{name}: {len(dataset.train)} of {found} training images drawn"
            dataset = replace(dataset, notes=(*dataset.notes, line))
        self.complete_spec(dataset)
        self.spec = replace(self.spec, note=note)
        return dataset

    def _source(self, request: DataRequest) -> tuple[Source, SourceKind, str]:
        """Return the first source that the request allows and that answers, its kind and revision."""
        from tasks.images.reading.dataset import source_in
        from tasks.images.reading.tables import hub_tables

        name, todo = self.spec.name, self.location.how
        if request.data in ("auto", "dir") and (folder := find_folder(self.location, request)):
            return source_in(folder, self.classes), "directory", name_of(folder)
        if request.data == "dir":
            known = "--data dir is given, but neither --data-dir nor BENCH_DATA names a directory that holds it"
            raise DataProblem(f"no directory with data for {name}", known, todo)
        if request.data == "embedded":
            raise DataProblem(f"{name} is not embedded", "digits and glue are embedded", todo)
        try:
            source, commit = hub_tables(self.hub, self.classes)
        except HubUnavailable as error:
            raise DataProblem(f"{name} is not available from the hub", error.what, todo) from error
        return source, "hub", commit


class VisionTask(PublishedImageTask):
    """A dataset with a name of its own; `folders` are the names of its folder, in the form of `Wanted`."""

    name: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]

    def __init__(self, _: str = "") -> None:
        self.spec = image_task_spec(self.name, num_classes=len(self.classes))
        self.location = Wanted(
            task=self.name,
            folders=self.folders,
            expected=f"a folder {self.folders[0]}",
            how=f"Name its folder with --data-dir {self.name}=DIR, or a folder that holds a folder {self.folders[0]} "
            "with --data-dir DIR.",
        )


class MNIST(VisionTask):
    """Handwritten digits, 28×28 grey, 60000 and 10000 (LeCun, Cortes and Burges)."""

    name = "mnist"
    lossless = "MNIST"
    folders = ("mnist",)
    classes = tuple("0123456789")
    hub = HubDataset(name="ylecun/mnist", config="mnist", revision="77f3279092a1c1579b2250db8eafed0ad422088c")


class FashionMNIST(VisionTask):
    """Pieces of clothing, 28×28 grey, 60000 and 10000 (arXiv 1708.07747)."""

    name = "fashion-mnist"
    lossless = "Fashion-MNIST"
    folders = ("fashionmnist", "fmnist")
    classes = FASHION
    hub = HubDataset(
        name="zalando-datasets/fashion_mnist",
        config="fashion_mnist",
        revision="531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2",
    )


@dataclass(frozen=True, kw_only=True)
class CIFARConfig(ImageConfig):
    """Images that can be mirrored and moved."""

    augment: Literal["none", "flip", "crop", "flip-crop", "trivial"] = option(
        "flip-crop", options_of(ImageConfig)["augment"].help
    )


class CIFAR10(VisionTask):
    """Animals and vehicles, 32×32 colour, 50000 and 10000 (Krizhevsky 2009)."""

    name = "cifar10"
    lossless = "CIFAR-10"
    folders = ("cifar10", "cifar10jpeg", "cifar10png", "cifar10images", "cifar10binary", "cifar10batchesbin")
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    hub = HubDataset(name="uoft-cs/cifar10", config="plain_text", revision="0b2714987fa478483af9968de7c934580d0bb9a2")
    Config = CIFARConfig


class CIFAR100(VisionTask):
    """A hundred kinds of things (the fine labels), 32×32 colour, 50000 and 10000 (Krizhevsky 2009)."""

    name = "cifar100"
    lossless = "CIFAR-100"
    folders = ("cifar100", "cifar100jpeg", "cifar100png", "cifar100images", "cifar100binary")
    classes = tuple(CIFAR100_NAMES.split())
    hub = HubDataset(name="uoft-cs/cifar100", config="cifar100", revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5")
    Config = CIFARConfig
