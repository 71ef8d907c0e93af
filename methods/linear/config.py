"""Linear probing: the head alone trains on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class LinearConfig(MethodConfig):
    """What the pretrained features are worth without any adaptation: the floor of every comparison.

    With `standardise` the head sees (h − μ)/σ, μ and σ of each feature over the first global batch: then SGD's progress
    says what the features hold, and not how large they are. MAE's linear probing has a BatchNorm without scale and
    shift there (He et al. 2021, arXiv 2111.06377, A.1), whose statistics would depend on how a batch is cut.
    Trains: the head. Parameters: head.

    Options: what the head sees.
    """

    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    standardise: bool = option(
        False,
        "Shift and scale each feature by its mean and deviation over the first global batch.",
    )
