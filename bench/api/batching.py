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
        labels: (B,) classes or numbers; (B, k) numbers, NaN where one was not observed; or (B, classes) zeros and ones.
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
        batch_size: examples per step, all devices together; the last batch of an epoch may be smaller.
        seed: of the order of every epoch.
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
    groups = chunks(order, GROUP * batches.batch_size)
    by_length = np.concatenate([group[np.argsort(-batches.lengths[group], kind="stable")] for group in groups])
    parts = chunks(by_length, batches.batch_size)
    return [parts[i] for i in generator.permutation(len(parts))]


def chunks(index: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut an array into parts of `size`; the last may be smaller."""
    return [index[i : i + size] for i in range(0, len(index), size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSplit:
    """The cut of a global batch: device `rank` of `world` takes `micro` examples at a time, or for 0 its whole share.

    Raises:
        UsageError: world × micro does not divide the global batch size.
    """

    batch_size: int
    rank: int = 0
    world: int = 1
    micro: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % (self.world * (self.micro or 1)):
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

    def part(
        self, batch: np.ndarray, index: int, example_weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """Return micro batch `index` of this device and the weight of its mean loss.

        Weights are such that the mean over parts and devices, which Lightning and DDP take, is the mean over the global
        batch; with `example_weights` (N,), all positive, it is their weighted mean, if the part's loss is one too.
        Where a small last batch leaves nothing for a device, it gets one example with weight 0, so that all devices
        take the same number of steps.
        """
        part = batch[self.rank :: self.world][index :: self.parts]
        if not len(part):
            return batch[:1], 0.0
        if example_weights is None:
            share = len(part) / len(batch)
        else:
            share = float(example_weights[part].sum() / example_weights[batch].sum())
        return part, share * self.world * self.parts
