"""The base of every task whose examples are pictures with a class; one from another package builds on it too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api.task import Task
from bench.config.options import Config, option
from bench.records.data import Dataset

if TYPE_CHECKING:
    from lightning import LightningDataModule

    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Config):
    """Size, channels and augmentation of the images."""

    namespace: ClassVar[str] = "task"

    size: int | None = option(
        None,
        "Images become size × size: the shorter side is resized to it and the centre is cut out; none leaves them as "
        "they are, and all must then have one size.",
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
        "eighth of the side and pads with zeros; both; TrivialAugmentWide (arXiv 2103.10158).",
    )


class ImageTask(Task):
    """A task of `bench.records.data.Arrays` of pictures (N, H, W, C): a subclass sets `spec` and implements `open`.

    Its dataset's `reading` holds `mean` and `std` per channel of train, in [0, 1].
    """

    modality: ClassVar[Literal["text", "image", "vector"]] = "image"
    Config: ClassVar[type] = ImageConfig

    def settle(self, dataset: Dataset, **changes: Any) -> Dataset:
        """Put into `spec` what the pictures say: shape and number of classes. Gives the dataset back."""
        height, width, channels = dataset.train.inputs.shape[1:]  # type: ignore[attr-defined]
        classes = len(dataset.reading["classes"])
        self.spec = replace(self.spec, shape=(channels, height, width), num_classes=classes, **changes)
        return dataset

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> LightningDataModule:
        """Normalised, in training augmented, batches of the dataset."""
        from tasks.images.augment import preparation
        from tasks.io.arrays import ArrayDataModule

        prepare = preparation(
            spec.options.task_as(ImageConfig).augment, dataset.reading["mean"], dataset.reading["std"], spec.seed
        )
        return ArrayDataModule(self.spec, dataset, spec, prepare)
