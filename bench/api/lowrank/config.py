"""Options of the low-rank methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class UpdateConfig(MethodConfig):
    """Options of every method that adds a low-rank update to frozen layers."""

    allocates: ClassVar[bool] = True

    target: str = option(
        "qv",
        "Layers to adapt: qv, attention, all-linear, convolutions, all (linear layers and convolutions), or a regular "
        "expression searched in the names of both. qv means all in a network without attention.",
    )
    dropout: float = option(0.0, "Dropout rate on the update's input.", at_least=0, at_most=0.999)
