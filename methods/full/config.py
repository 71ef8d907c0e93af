"""Full fine-tuning: every parameter of the backbone trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class FullConfig(MethodConfig):
    """The reference every other method is held against.

    Trains: everything. Parameters: all of backbone and head.
    ΔW = W(t) − W(0) of every linear layer and convolution, by its matricisation (out, in·k·k), its rank limited by its
    shape alone.
    """

    learning_rate: ClassVar[float] = 1e-4
    learning_rates: ClassVar[tuple[float, ...]] = (3e-5, 1e-4, 3e-4)
    scratch_learning_rate: ClassVar[float] = 1e-3
