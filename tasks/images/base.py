"""The base of every task whose examples are pictures with a class; one from another package builds on it too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api.task import Task
from bench.config.sections import in_range
from bench.records.data import Corpus

if TYPE_CHECKING:
    from lightning import LightningDataModule

    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What pictures are made into."""

    size: int | None = None
    """Pictures become size × size: the shorter side is resized to it, the centre cut out; none leaves them as they are,
    and all must then be of one size."""
    mode: Literal["auto", "grey", "rgb"] = "auto"
    """Channels, to which every picture is converted; auto takes what the first is, and refuses others."""
    augment: Literal["none", "flip", "crop", "flip-crop", "trivial"] = "none"
    """What changes pictures in training, each anew in every step: mirrored with chance ½; moved by up to an eighth of
    the side, zeros coming in; both; TrivialAugmentWide (arXiv 2103.10158)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        in_range("task.size", 1 if self.size is None else self.size, 1, 1024)


class ImageTask(Task):
    """A task of `bench.records.data.Arrays` of pictures (N, H, W, C): a subclass sets `spec` and implements `open`.

    Its corpus' `reading` holds `mean` and `std` per channel of train, in [0, 1].
    """

    modality: ClassVar[Literal["text", "image", "vector"]] = "image"
    Config: ClassVar[type] = ImageConfig

    def settle(self, corpus: Corpus, **changes: Any) -> Corpus:
        """Put into `spec` what the pictures say: shape and number of classes. Gives the corpus back."""
        height, width, channels = corpus.train.inputs.shape[1:]  # type: ignore[attr-defined]
        classes = len(corpus.reading["classes"])
        self.spec = replace(self.spec, shape=(channels, height, width), num_classes=classes, **changes)
        return corpus

    def datamodule(self, corpus: Corpus, backbone: Backbone, spec: RunSpec) -> LightningDataModule:
        """Normalised, in training augmented, batches of the corpus."""
        from tasks.images.augment import preparation
        from tasks.io.arrays import ArrayDataModule

        prepare = preparation(
            str(spec.task_options["augment"]), corpus.reading["mean"], corpus.reading["std"], spec.seed
        )
        return ArrayDataModule(self.spec, corpus, spec, prepare)
