"""Which examples each step trains on: one global list of batches, a function of seed and step alone.

The number of devices and the micro batch decide how a global batch is split, never what is in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from bench.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


class Batch(TypedDict):
    """Some examples as a method gets them.

    Attributes:
        inputs: what the network's forward takes, by name: `input_ids` and `attention_mask` (B, T), or `x` (B, …).
        labels: (B,) or (B, k); NaN where a number was not observed.
        index: (B,) numbers of the examples in their split.
        weight: factor on the mean loss, so that micro batches and devices add up to the mean over the global batch.
        step: of the optimiser; −1 in evaluation.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    index: Tensor
    weight: float
    step: int


GROUP = 50
"""Batches within which examples are sorted by length: little padding, and still a random order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StepBatches:
    """Global batches by step.

    Attributes:
        lengths: tokens per training example (N,).
        batch_size: examples per optimiser step, all devices together; the last batch of an epoch may be smaller.
        seed: seeds the order of every epoch.
    """

    lengths: np.ndarray
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps per epoch."""
        return math.ceil(len(self.lengths) / self.batch_size)

    def __getitem__(self, step: int) -> np.ndarray:
        """Return the indices of the examples of step 0, 1, …"""
        epoch, within = divmod(step, self.per_epoch)
        return _epoch(self, epoch)[within]


@lru_cache(maxsize=2)
def _epoch(batches: StepBatches, epoch: int) -> list[np.ndarray]:
    """Return the batches of an epoch: shuffled, sorted by length inside groups of batches, and shuffled again."""
    generator = np.random.default_rng([batches.seed, epoch])
    order = generator.permutation(len(batches.lengths))
    size = batches.batch_size
    groups = [order[i : i + GROUP * size] for i in range(0, len(order), GROUP * size)]
    sorted_groups = [g[np.argsort(-batches.lengths[g], kind="stable")] for g in groups]
    flat = np.concatenate(sorted_groups)
    parts = [flat[i : i + size] for i in range(0, len(flat), size)]
    return [parts[i] for i in generator.permutation(len(parts))]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSplit:
    """How a global batch becomes micro batches: device `rank` of `world`, `micro` examples at a time.

    Attributes:
        batch_size: global batch size; world × micro must divide it.
    """

    batch_size: int
    rank: int = 0
    world: int = 1
    micro: int = 0

    def __post_init__(self) -> None:
        """Check that the sizes fit.

        Raises:
            UsageError: world × micro does not divide the global batch size.
        """
        if self.batch_size % self.world or (self.micro and (self.batch_size // self.world) % self.micro):
            micro = f" × {self.micro} per micro batch" if self.micro else ""
            raise UsageError(
                f"--batch-size {self.batch_size} cannot be divided into equal parts",
                f"{self.world} devices{micro} do not divide it",
                "micro batch × accumulation × devices = batch size: change one of them.",
            )

    @property
    def parts(self) -> int:
        """Micro batches per step and device: gradients accumulate over them."""
        return self.batch_size // self.world // self.micro if self.micro else 1

    def part(self, batch: np.ndarray, index: int) -> tuple[np.ndarray, float]:
        """Return micro batch `index` of this device and the weight of its mean loss.

        Weights are such that the mean over parts and devices, which Lightning and DDP take, is the mean over the global
        batch. Where a small last batch leaves nothing for a device, it gets one example with weight 0, so that all
        devices take the same number of steps.
        """
        own = batch[self.rank :: self.world][index :: self.parts]
        if not len(own):
            return batch[:1], 0.0
        return own, len(own) / len(batch) * self.world * self.parts
