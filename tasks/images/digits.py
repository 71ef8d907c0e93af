"""Handwritten digits of 8×8 grey pixels, embedded: real images that need no network.

The test part of UCI's optical recognition of handwritten digits (Alpaydin and Kaynak 1998), 1797 images, comes with
scikit-learn. A fifth is the test split, the same share of every class and the same for all seeds.
"""

from __future__ import annotations

from bench.core.errors import DataProblem
from bench.records.data import Arrays, DataRequest, Dataset
from tasks.images.base import ImageConfig, ImageTask, image_task_spec

VERSION = 1
"""Version of the split, and its seed."""


class Digits(ImageTask):
    """scikit-learn's `load_digits`, with its values 0 to 16 scaled to 0 to 255."""

    def __init__(self, _: str = "") -> None:
        self.spec = image_task_spec("digits", num_classes=10, version=VERSION)

    def open(self, request: DataRequest) -> Dataset:
        if request.data in ("dir", "hub"):
            todo = "Leave --data out, or use --task mnist."
            raise DataProblem("digits are embedded only", f"--data {request.data} is given", todo)
        import numpy as np
        from sklearn.datasets import load_digits

        from tasks.images.reading.decode import Decoder
        from tasks.images.reading.prepare import channel_statistics
        from tasks.table.labels import split

        config = request.config_as(ImageConfig)
        images, labels = load_digits(return_X_y=True)
        grey = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        decoder = Decoder(size=config.size, mode=config.mode)
        pixels, targets = np.stack([decoder.decode(image) for image in grey]), np.asarray(labels, dtype=np.int64)
        train, test = split([str(label) for label in targets.tolist()], 0.2, seed=VERSION, stratify=True)
        mean, std = channel_statistics(pixels[train])
        dataset = Dataset(
            train=Arrays(pixels[train], targets[train]),
            evaluation={"test": Arrays(pixels[test], targets[test])},
            source="embedded",
            revision=str(VERSION),
            reading={
                "size": config.size,
                "mode": "grey" if pixels.shape[-1] == 1 else "rgb",
                "classes": [str(digit) for digit in range(10)],
                "left_out": {},
                "sizes": {"train": len(train), "test": len(test)},
                "mean": mean,
                "std": std,
            },
        )
        self.complete_spec(dataset)
        return dataset
