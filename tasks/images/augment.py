"""Preparation of a batch of images: augmentation of the bytes, then normalisation to floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.core.random import uniform
from tasks.io.arrays import Prepare

DRAWS = {"none": 0, "flip": 1, "crop": 2, "flip-crop": 3, "trivial": 1}
"""Augmentation → uniform numbers in [0, 1) that it uses for each image."""
SHIFT = 8
"""Images move by at most their side over this: 4 of 32 pixels, as is usual on CIFAR (He et al. 1512.03385)."""


def preparation(augmentation: str, mean: Sequence[float], std: Sequence[float], seed: int) -> Prepare:
    """Return the function that turns a batch of stored images into input for a network.

    In training (step ≥ 0) it augments by `augmentation`, a key of `DRAWS`; `mean` and `std` are as for `normalise`.
    """

    def prepare(pixels: np.ndarray, index: np.ndarray, step: int) -> Tensor:
        if step >= 0 and DRAWS[augmentation]:
            pixels = augment(augmentation, pixels, uniform(seed, "augment", step, index, DRAWS[augmentation]))
        return normalise(pixels, mean, std)

    return prepare


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return bytes (B, H, W, C) as (x/255 − mean)/std, channels first (B, C, H, W) float32.

    `mean` and `std` are per channel, in [0, 1]; a channel with std 0 is not divided.
    """
    x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float().div_(255)
    centre = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
    scale = torch.tensor([value or 1.0 for value in std], dtype=torch.float32).view(1, -1, 1, 1)
    return x.sub_(centre).div_(scale)


def augment(name: str, pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return images (B, H, W, C) uint8, each augmented by its own draws alone, uniform in [0, 1): (B, `DRAWS[name]`).

    `pixels` stay unchanged.
    """
    if draws.shape != (len(pixels), DRAWS[name]):
        raise ValueError(f"{name} takes draws of shape {(len(pixels), DRAWS[name])}, not {draws.shape}")
    if name == "trivial":
        return _trivial(pixels, draws[:, 0])
    if name in ("flip", "flip-crop"):
        mirrored = draws[:, 0] < 0.5
        pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    if name in ("crop", "flip-crop"):
        pixels = _crop(pixels, draws[:, -2:])
    return pixels


def _crop(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Pad with zeros, and crop at a place drawn for each image."""
    _, height, width, _ = pixels.shape
    rows, columns = height // SHIFT, width // SHIFT
    padded = np.pad(pixels, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    top = (draws[:, 0] * (2 * rows + 1)).astype(int)
    left = (draws[:, 1] * (2 * columns + 1)).astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return windows[np.arange(len(pixels)), top, left].transpose(0, 2, 3, 1)


def _trivial(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Apply torchvision's TrivialAugmentWide (arXiv 2103.10158): one operation and strength, drawn for each image."""
    from torchvision.transforms import TrivialAugmentWide

    operation = TrivialAugmentWide()
    out = np.empty_like(pixels)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator of the CPU
        for i, (image, draw) in enumerate(zip(pixels, draws, strict=True)):
            torch.default_generator.manual_seed(int(draw * 2**53))  # manual_seed would set every GPU's too
            augmented: Tensor = operation(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
            out[i] = augmented.numpy().transpose(1, 2, 0)
    return out
