"""Random numbers of an example at a step: functions of seed, purpose, step and example alone."""

from __future__ import annotations

import hashlib

import numpy as np


def uniform(seed: int, purpose: str, step: int, index: np.ndarray, size: int) -> np.ndarray:
    """Uniform numbers in [0, 1), (B, size) float64, a row per example.

    However a batch is cut over devices and micro batches, and wherever an interrupted run goes on, an example meets the
    same numbers. Philox is counter-based: the key holds seed and purpose, the counter step and example.

    Args:
        purpose: different purposes have independent numbers.
        step: optimiser step, −1 in evaluation.
        index: (B,) numbers of the examples.
    """
    digest = hashlib.sha256(f"{seed}\x00{purpose}".encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8")
    drawn = np.empty((len(index), size))
    for row, example in enumerate(index):
        # the low word counts the numbers of one example; −1 becomes the largest step
        counter = np.array([0, 0, int(example), step % 2**64], dtype=np.uint64)  # a list would become float64
        drawn[row] = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(size)
    return drawn
