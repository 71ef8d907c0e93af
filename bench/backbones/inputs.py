"""Shapes of one input, and which patch or network they fit."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from bench.core.errors import UsageError

if TYPE_CHECKING:
    from bench.api.task import TaskSpec

TOKENS = 1024
"""Patches that are taken without being asked for; attention costs their square."""


def shape_of(task: TaskSpec, name: str) -> tuple[int, ...]:
    """(C, H, W) of an image, (n,) of a vector.

    Raises:
        UsageError: the task has no such shape, as a text task.
    """
    if not task.shape:
        raise UsageError(
            f"backbone '{name}' reads numbers of a fixed shape, and {task.name} has none",
            f"{task.name} is of modality {task.modality}",
            "Choose another backbone: `bench list backbones`.",
        )
    return task.shape


def image_of(task: TaskSpec, name: str, *, least: int = 1) -> tuple[int, int, int]:
    """(C, H, W).

    Args:
        task: whose inputs they are.
        name: of the backbone.
        least: height and width that the network needs.

    Raises:
        UsageError: the inputs are no images, or are smaller than that.
    """
    shape = shape_of(task, name)
    if len(shape) != 3:
        raise UsageError(
            f"backbone '{name}' reads images, and {task.name} has vectors of {shape[0]} numbers",
            "an image has the shape (channels, height, width)",
            "Choose --backbone mlp or dln, which take both.",
        )
    channels, height, width = shape
    if min(height, width) < least:
        raise UsageError(
            f"backbone '{name}' needs images of at least {least}×{least}",
            f"those of {task.name} are {height}×{width}",
            "Choose --backbone vit, mlp or dln for images as small as that.",
        )
    return channels, height, width


def patch_for(height: int, width: int, patch: int = 0) -> int:
    """Side of a ViT's square patches, in pixels: `patch` itself where it fits, or for 0 one that does.

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
            raise UsageError(f"backbone.patch={patch} does not divide {sides}", known, "Take one of these.")
        return patch
    best = max([p for p in divisors if p <= min(16, min(height, width) // 4)], default=1)
    if (count := height * width // best**2) > TOKENS:
        raise UsageError(
            f"no patch fits {sides} well",
            f"{best} pixels would give {count} patches, at most {TOKENS} are taken unasked",
            f"Give the images another size, or say --set backbone.patch={best}.",
        )
    return best
