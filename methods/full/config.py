"""Full fine-tuning: trains every parameter of the backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class FullConfig(MethodConfig):
    """Trains every parameter: the reference that every other method is compared with.

    ΔW = W(t) − W(0) of every linear layer and convolution; a convolution counts as the matrix (out, in·k·k). The shape
    alone limits the rank of ΔW. Embeddings train without it; `trained_without_delta` in the record names them.
    Trains: the whole backbone and the head.
    Parameters: all of backbone and head.
    """

    freezes: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 1e-4
    learning_rates: ClassVar[tuple[float, ...]] = (3e-5, 1e-4, 3e-4)
    scratch_learning_rate: ClassVar[float] = 1e-3
