"""What is done to a batch of pictures: augmentation of the bytes, then normalisation to floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.core.random import uniform
from tasks.io.arrays import Prepare

DRAWS = {"none": 0, "flip": 1, "crop": 2, "flip-crop": 3, "trivial": 1}
"""Augmentation → uniform numbers in [0, 1) that it takes for each picture."""
SHIFT = 8
"""Pictures are moved by at most the side over this: 4 of 32 pixels, as is usual on CIFAR (He et al. 1512.03385)."""


def preparation(augmentation: str, mean: Sequence[float], std: Sequence[float], seed: int) -> Prepare:
    """What makes a batch of stored pictures into what a network reads; in training (step ≥ 0) changed at random first.

    Args:
        augmentation: a key of `DRAWS`.
        mean, std: per channel, in [0, 1].
        seed: of the run.
    """

    def prepare(pixels: np.ndarray, index: np.ndarray, step: int) -> Tensor:
        if step >= 0 and DRAWS[augmentation]:
            pixels = augment(augmentation, pixels, uniform(seed, "augment", step, index, DRAWS[augmentation]))
        return normalise(pixels, mean, std)

    return prepare


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes (B, H, W, C) as (x/255 − mean)/std, channels first (B, C, H, W) float32.

    Args:
        pixels: uint8.
        mean, std: per channel, in [0, 1]; a channel that is the same everywhere is not divided.
    """
    x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float().div_(255)
    centre = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
    scale = torch.tensor([value or 1.0 for value in std], dtype=torch.float32).view(1, -1, 1, 1)
    return x.sub_(centre).div_(scale)


def augment(name: str, pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Pictures (B, H, W, C) uint8, each changed as its own draws say, and by nothing else.

    Args:
        name: a key of `DRAWS`.
        pixels: left as they are.
        draws: uniform in [0, 1), (B, `DRAWS[name]`).
    """
    if draws.shape != (len(pixels), DRAWS[name]):
        raise ValueError(f"{name} takes draws of shape {(len(pixels), DRAWS[name])}, not {draws.shape}")
    if name == "trivial":
        return _trivial(pixels, draws[:, 0])
    if name in ("flip", "flip-crop"):
        mirrored = draws[:, 0] < 0.5
        pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    if name in ("crop", "flip-crop"):
        pixels = _moved(pixels, draws[:, -2:])
    return pixels


def _moved(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Cut out of the pictures with a border of zeros, at a place drawn for each."""
    _, height, width, _ = pixels.shape
    rows, columns = height // SHIFT, width // SHIFT
    padded = np.pad(pixels, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    top = np.floor(draws[:, 0] * (2 * rows + 1)).astype(int)
    left = np.floor(draws[:, 1] * (2 * columns + 1)).astype(int)
    index = np.arange(len(pixels))[:, None, None]
    y = (top[:, None] + np.arange(height))[:, :, None]
    x = (left[:, None] + np.arange(width))[:, None, :]
    return padded[index, y, x]


def _trivial(pixels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """TrivialAugmentWide (arXiv 2103.10158) of torchvision: one operation and strength, both drawn, for each."""
    from torchvision.transforms import TrivialAugmentWide

    change = TrivialAugmentWide()
    out = np.empty_like(pixels)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator of the CPU
        for i, (picture, draw) in enumerate(zip(pixels, draws, strict=True)):
            torch.default_generator.manual_seed(int(draw * 2**53))  # manual_seed would set every GPU's too
            changed: Tensor = change(torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))))
            out[i] = changed.numpy().transpose(1, 2, 0)
    return out
