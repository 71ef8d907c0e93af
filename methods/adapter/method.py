"""Bottleneck adapters: two thin layers with a residual connection after every block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bench.config.sections import MethodConfig
from methods.adapter.config import AdapterConfig
from methods.common.adapters import Adapters


class Adapter(Adapters):
    """Adds a bottleneck after every block (see `AdapterConfig`)."""

    Config: ClassVar[type[MethodConfig]] = AdapterConfig

    config: AdapterConfig

    def lowest(self, blocks: int) -> int:
        return 0

    def sweep(self) -> Iterator[dict[str, int]]:
        """Skip the first n adapters, for every n, with method.sweep."""
        return self.sweep_dropped() if self.config.sweep else iter(())
