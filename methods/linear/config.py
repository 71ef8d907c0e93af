"""Linear probing: trains the head on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class LinearConfig(MethodConfig):
    """Trains the head alone. Shows what the pretrained features are worth, and is the floor of every comparison.

    With `standardise` the head sees (h − μ)/σ, with mean μ and deviation σ of each feature over the first global batch.
    SGD's progress then depends on what the features hold and not on how large they are. MAE's linear probing uses a
    BatchNorm without scale and shift here (He et al. 2021, arXiv 2111.06377, A.1), but its statistics would depend on
    how a batch is split.
    Trains: the head.
    Parameters: head.
    """

    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    standardise: bool = option(False, "Standardise each feature by its mean and deviation over the first global batch.")
