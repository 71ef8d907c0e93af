"""Bases of tasks whose examples are images with a class: `ImageTask`, and `PublishedImageTask` for known datasets."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.api.task import Task, TaskSpec
from bench.config.options import Config, option
from bench.core.errors import DataProblem
from bench.core.hub import HubDataset, HubUnavailable
from bench.records.data import Arrays, DataRequest, Dataset, SourceKind
from tasks.io.directories import Wanted, find_folder, name_of

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec
    from tasks.images.reading.prepare import Facts
    from tasks.images.reading.source import Source
    from tasks.io.arrays import ArrayDataModule


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Config):
    """Size, channels and augmentation of the images."""

    namespace: ClassVar[str] = "task"

    size: int | None = option(
        None,
        "Images become size × size: the shorter side is resized to it and the centre is cropped; none keeps their "
        "size, and all must then have the same.",
        at_least=1,
        at_most=1024,
    )
    mode: Literal["auto", "grey", "rgb"] = option(
        "auto",
        "Channels, to which every image is converted; auto takes those of the first image and refuses others.",
    )
    augment: Literal["none", "flip", "crop", "flip-crop", "trivial"] = option(
        "none",
        "Augmentation in training, drawn anew in every step: flip mirrors with probability ½; crop moves by up to an "
        "eighth of the side and pads with zeros; flip-crop does both; trivial is TrivialAugmentWide (arXiv "
        "2103.10158).",
    )


class ImageTask(Task):
    """A task of `bench.records.data.Arrays` of images (N, H, W, C): a subclass sets `spec` and implements `open`.

    The `reading` of its dataset holds `classes`, and `mean` and `std` per channel of train, in [0, 1].
    """

    modality: ClassVar[Literal["text", "image", "vector"]] = "image"
    Config: ClassVar[type[ImageConfig]] = ImageConfig

    def complete_spec(self, dataset: Dataset, note: str | None = None) -> None:
        """Put into `spec` what only the images say, their shape and the number of classes; and a new note, if any."""
        assert isinstance(dataset.train, Arrays)
        height, width, channels = dataset.train.inputs.shape[1:]
        classes, note = len(dataset.reading["classes"]), self.spec.note if note is None else note
        self.spec = replace(self.spec, shape=(channels, height, width), num_classes=classes, note=note)

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> ArrayDataModule:
        """Batches of the dataset, normalised, and augmented in training."""
        from tasks.images.augment import preparation
        from tasks.io.arrays import ArrayDataModule

        reading, augment = dataset.reading, spec.options.task_as(ImageConfig).augment
        prepare = preparation(augment, reading["mean"], reading["std"], spec.seed)
        return ArrayDataModule(self.spec, dataset, spec, prepare)


def image_task_spec(name: str, num_classes: int = 0, version: int | str = 1) -> TaskSpec:
    """Return the description of a published task: accuracy is its primary metric."""
    return TaskSpec(
        name=name,
        version=version,
        modality="image",
        num_classes=num_classes,
        metrics=("accuracy", "macro_f1"),
        primary=("accuracy",),
    )


class PublishedImageTask(ImageTask):
    """A published dataset, scored on its test split: read from a directory of the user, or else from the hub.

    Attributes:
        location: how its folder is found.
        hub: where it is on the hub.
        classes: names in order; empty where the data name them.
        most_train: if train has more images, this many are drawn; 0 takes all.
    """

    location: Wanted
    hub: HubDataset
    classes: tuple[str, ...] = ()
    most_train: int = 0

    @abstractmethod
    def note(self, facts: Facts, drawn: bool) -> str:
        """Return the caveat shown beside scores; `drawn`: whether only some training images are used."""

    def open(self, request: DataRequest) -> Dataset:
        """Read and check all images of train and test.

        Raises:
            AbsentTask: a directory of the user can be read, but does not hold this task.
            DataProblem: there are no data, or an image or file is broken; the error names it.
        """
        from tasks.images.reading.dataset import load_images
        from tasks.images.reading.prepare import Preparation

        source, kind, revision = self._source(request)
        config = request.config_as(self.Config)
        preparation = Preparation(
            size=config.size, mode=config.mode, classes=self.classes or source.classes, most_train=self.most_train
        )
        name = self.location.task
        dataset, facts = load_images(
            name, [source], preparation, request, kind=kind, revision=revision, needed=("train", "test")
        )
        found = facts["found"]["train"]
        if drawn := 0 < self.most_train < found:
            line = f"{name}: {len(dataset.train)} of {found} training images drawn"
            dataset = replace(dataset, notes=(*dataset.notes, line))
        self.complete_spec(dataset, self.note(facts, drawn))
        return dataset

    def _source(self, request: DataRequest) -> tuple[Source, SourceKind, str]:
        """Return the first source that the request allows and that answers, its kind and revision."""
        from tasks.images.reading.dataset import source_in
        from tasks.images.reading.tables import hub_tables

        name, todo = self.location.task, self.location.how
        if request.data in ("auto", "dir") and (folder := find_folder(self.location, request)):
            return source_in(folder, self.classes), "directory", name_of(folder)
        if request.data == "dir":
            known = "--data dir is given, but neither --data-dir nor BENCH_DATA names a directory that holds it"
            raise DataProblem(f"no directory with data for {name}", known, todo)
        if request.data == "embedded":
            raise DataProblem(f"{name} is not embedded", "digits and glue are embedded", todo)
        try:
            tables = hub_tables(self.hub, self.classes)
        except HubUnavailable as error:
            raise DataProblem(f"{name} is not available from the hub", error.what, todo) from error
        return tables, "hub", tables.place.rpartition("@")[2]
