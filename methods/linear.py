"""Linear probing: the head alone trains on frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.method import Batch, Method


class Linear(Method):
    """What the pretrained features are worth without any adaptation: the floor of every comparison.

    Trains: the head. Parameters: head.
    """

    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """No options."""

    config: Config

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone."""
        self.backbone.requires_grad_(False)
