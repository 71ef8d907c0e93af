"""The shape of a task's inputs, and the patches that fit it."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from bench.core.errors import UsageError

if TYPE_CHECKING:
    from bench.api.task import TaskSpec

MAX_PATCHES = 1024
"""Most patches of an image that are chosen by default; attention costs their square."""


def input_shape(task: TaskSpec, name: str) -> tuple[int, ...]:
    """Return (C, H, W) of an image, (n,) of a vector.

    Raises:
        UsageError: the inputs have no fixed shape, such as texts.
    """
    if not task.shape:
        raise UsageError(
            f"backbone '{name}' reads numbers of a fixed shape, and {task.name} has none",
            f"{task.name} is of modality {task.modality}",
            "Choose another backbone: `bench list backbones`.",
        )
    return task.shape


def image_shape(task: TaskSpec, name: str, *, minimum: int = 1) -> tuple[int, int, int]:
    """Return (C, H, W) of a task's images.

    Args:
        task: the task.
        name: of the backbone.
        minimum: least height and width that the network accepts.

    Raises:
        UsageError: the inputs are not images, or are smaller than that.
    """
    shape = input_shape(task, name)
    if len(shape) != 3:
        raise UsageError(
            f"backbone '{name}' reads images, and {task.name} has vectors of {shape[0]} numbers",
            "an image has the shape (channels, height, width)",
            "Choose --backbone mlp or dln, which take both.",
        )
    channels, height, width = shape
    if min(height, width) < minimum:
        raise UsageError(
            f"backbone '{name}' needs images of at least {minimum}×{minimum}",
            f"those of {task.name} are {height}×{width}",
            "Choose --backbone vit, mlp or dln for such small images.",
        )
    return channels, height, width


def patch_size(height: int, width: int, patch: int = 0) -> int:
    """Return the side of a ViT's square patches, in pixels: `patch` itself where it fits; for 0 one that fits.

    That is the largest common divisor of both sides which is at most 16 and gives at least 4×4 patches: 2 for 8×8, 7
    for 28×28, 8 for 32×32, 16 for 64×64 and 224×224.

    Raises:
        UsageError: `patch` does not divide the sides, or no such divisor gives at most 1024 patches.
    """
    sides = f"images of {height}×{width} pixels"
    divisors = [p for p in range(1, gcd(height, width) + 1) if height % p == width % p == 0]
    if patch:
        if patch not in divisors:
            known = f"patches that fit: {', '.join(f'{p}' for p in divisors)}"
            raise UsageError(f"backbone.patch={patch} does not divide {sides}", known, "Choose one of these.")
        return patch
    best = max([p for p in divisors if p <= min(16, min(height, width) // 4)], default=1)
    if (count := height * width // best**2) > MAX_PATCHES:
        raise UsageError(
            f"no patch fits {sides} well",
            f"{best} pixels would give {count} patches; the default takes at most {MAX_PATCHES}",
            f"Resize the images, or use --set backbone.patch={best}.",
        )
    return best
