"""The shape of a task's images, and the patches that fit it."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from bench.core.errors import UsageError

if TYPE_CHECKING:
    from bench.api.task import TaskSpec

MAX_PATCHES = 1024
"""Most patches of an image that are chosen by default; attention costs their square."""


def image_shape(task: TaskSpec, backbone: str, *, minimum: int = 1) -> tuple[int, int, int]:
    """Return (C, H, W) of a task's images.

    Raises:
        UsageError: height or width is below `minimum`, the least that the network accepts.
    """
    channels, height, width = task.shape
    if min(height, width) < minimum:
        raise UsageError(
            f"backbone '{backbone}' needs images of at least {minimum}×{minimum}",
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
            known = f"patches that fit: {', '.join(map(str, divisors))}"
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
