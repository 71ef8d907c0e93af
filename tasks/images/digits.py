"""Handwritten digits of 8×8 grey pixels, embedded: real ones, which need no network.

The test part of UCI's optical recognition of handwritten digits (Alpaydin and Kaynak 1998), 1797 pictures, which
scikit-learn brings along. A fifth is scored on, of every class alike, the same for all seeds.
"""

from __future__ import annotations

from typing import ClassVar

from bench.api.task import TaskSpec
from bench.core.errors import DataProblem
from bench.records.data import Arrays, DataRequest, Dataset
from tasks.images.base import ImageConfig, ImageTask

SPLIT = 1
"""Version of the split, and its seed."""
SHARE = 0.2


class Digits(ImageTask):
    """scikit-learn's `load_digits`, values 0 to 16 spread over 0 to 255."""

    Config: ClassVar[type] = ImageConfig

    def __init__(self, _: str = "") -> None:
        self.spec = TaskSpec(
            name="digits",
            version=SPLIT,
            modality="image",
            num_classes=10,
            metrics=("accuracy", "macro_f1"),
            primary=("accuracy",),
        )

    def open(self, request: DataRequest) -> Dataset:
        """The pictures, split.

        Raises:
            DataProblem: a directory or the hub was asked for; scikit-learn is not installed.
        """
        if request.data in ("dir", "hub"):
            todo = "Leave --data out, or take --task mnist."
            raise DataProblem("digits are embedded only", f"--data {request.data} was asked", todo)
        from tasks.images.digits_data import read_digits

        config = request.config or ImageConfig()
        train, test, reading = read_digits(config, SHARE, SPLIT)
        dataset = Dataset(
            train=Arrays(*train),
            evaluation={"test": Arrays(*test)},
            source="embedded",
            revision=str(SPLIT),
            reading=reading,
        )
        return self.settle(dataset)
