"""Which patches a masked autoencoder masks: how many, and which ones of an example at a step."""

from __future__ import annotations

import numpy as np

from bench.core import random
from bench.core.errors import UsageError


def count(ratio: float, patches: int) -> int:
    """How many of `patches` are masked, the nearest to `ratio` of them.

    Raises:
        UsageError: none, or all.
    """
    masked = round(ratio * patches)
    if not 0 < masked < patches:
        raise UsageError(
            f"method.mask_ratio={ratio:g} masks {masked} of {patches} patches",
            "at least one must be masked, and one visible",
            "Change it, or take smaller patches: --set backbone.patch=N.",
        )
    return masked


def visible(seed: int, step: int, index: np.ndarray, *, patches: int, masked: int) -> np.ndarray:
    """Numbers of the visible patches, (B, patches − masked) int64, ascending: every subset is as likely.

    Args:
        seed: of the run.
        step: optimiser step, −1 in evaluation.
        index: (B,) numbers of the examples.
        patches: N.
        masked: how many of them are masked.
    """
    drawn = random.uniform(seed, "mae masks", step, index, patches)
    return np.sort(drawn.argsort(axis=1, kind="stable")[:, masked:], axis=1)


__all__ = ["count", "visible"]
