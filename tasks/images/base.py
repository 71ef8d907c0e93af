"""The base of tasks whose examples are images with a class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.api.task import Task, TaskSpec
from bench.config.options import Config, option
from bench.records.data import Arrays, Dataset

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.api.inputs import InputRequest, NewInputs
    from bench.records.spec import RunSpec
    from tasks.io.arrays import ArrayDataModule


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Config):
    namespace: ClassVar[str] = "task"

    size: int | None = option(
        None,
        "Images become size × size: the shorter side is resized to it and the centre is cropped; none keeps their "
        "size, and all must then have the same.",
        at_least=1,
        at_most=1024,
    )
    mode: Literal["auto", "grey", "rgb"] = option(
        "auto", "Channels, to which every image is converted; auto takes those of the first image and refuses others."
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

    def complete_spec(self, dataset: Dataset) -> None:
        """Put into `spec` what only the images say: their shape and the number of classes."""
        assert isinstance(dataset.train, Arrays)
        height, width, channels = dataset.train.inputs.shape[1:]
        labels = tuple(map(str, dataset.reading["classes"]))
        self.spec = replace(self.spec, shape=(channels, height, width), num_classes=len(labels), labels=labels)

    @classmethod
    def new_inputs(cls, request: InputRequest) -> NewInputs:
        """Open images, or folders of them."""
        from tasks.images.new_images import NewImages

        return NewImages(request)

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> ArrayDataModule:
        from tasks.images.augment import preparation
        from tasks.io.arrays import ArrayDataModule

        reading, augment = dataset.reading, spec.options.task_as(ImageConfig).augment
        prepare = preparation(augment, reading["mean"], reading["std"], spec.seed)
        return ArrayDataModule(self.spec, dataset, spec, prepare)


def image_task_spec(
    name: str, *, num_classes: int = 0, version: int | str = 1, metrics: tuple[str, ...] = ("accuracy", "macro_f1")
) -> TaskSpec:
    """Return the description of a task, which the first metric scores; `num_classes` is 0 until the data say it."""
    return TaskSpec(
        name=name, version=version, modality="image", num_classes=num_classes, metrics=metrics, primary=metrics[:1]
    )
