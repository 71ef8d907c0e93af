"""Bottleneck adapters: two thin projections with a residual connection after every block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from bench.config.sections import MethodConfig
from methods.adapter.config import AdapterConfig
from methods.common.adapters import Adapters


class Adapter(Adapters):
    """Adds a bottleneck after every block (see `AdapterConfig`)."""

    Config: ClassVar[type[MethodConfig]] = AdapterConfig

    config: AdapterConfig

    def lowest(self, blocks: int) -> int:
        """Every block has an adapter."""
        return 0

    def sweep(self) -> Iterator[dict[str, Any]]:
        """The trained network without its first n adapters, where that is asked."""
        return self.drops() if self.config.sweep else iter(())
