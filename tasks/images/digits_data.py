"""scikit-learn's digits as bytes, in the size and mode asked for, and split."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.core.errors import DataProblem
from tasks.images.base import ImageConfig
from tasks.images.build import channels
from tasks.images.decode import Decoder
from tasks.table.labels import split

Part = tuple[np.ndarray, np.ndarray]
HIGHEST = 16
"""Every value counts the inked pixels of a 4×4 block."""


def read_digits(config: ImageConfig, share: float, seed: int) -> tuple[Part, Part, dict[str, Any]]:
    """Pictures (N, H, W, C) uint8 and classes (N,) int64 of train and of test, and how they were read.

    Raises:
        DataProblem: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataProblem("digits come with scikit-learn", str(error), "pip install scikit-learn") from error
    found: Any = load_digits()
    decoder = Decoder(size=config.size, mode=config.mode)
    grey = np.rint(found.images * (255 / HIGHEST)).astype(np.uint8)
    pixels = np.stack([decoder.decode(picture) for picture in grey])
    labels = np.asarray(found.target, dtype=np.int64)
    train, test = split([str(label) for label in labels.tolist()], share, seed=seed, stratify=True)
    mean, std = channels(pixels[train])
    reading = {
        "size": config.size,
        "mode": "grey" if pixels.shape[-1] == 1 else "rgb",
        "classes": [str(name) for name in found.target_names],
        "left_out": {},
        "sizes": {"train": len(train), "test": len(test)},
        "mean": mean,
        "std": std,
    }
    return (pixels[train], labels[train]), (pixels[test], labels[test]), reading
