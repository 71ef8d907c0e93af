"""Bottleneck adapters: two thin projections with a residual connection after every block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from methods.common.adapters import AdapterConfig, Adapters


class Adapter(Adapters):
    """h ← h + Up(act(Down(h))) for the output h (D) of every block (Pfeiffer et al. 2020, arXiv 2005.00247).

    One adapter per block, with bottleneck b = D / reduction, D the block's width or number of channels; Up starts at
    zero, so the network starts where the backbone is. Trains: Down (b, D), Up (D, b), their biases, and the head.
    Parameters: Σ over the blocks 2·D·b + b + D, plus head.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    @dataclass(frozen=True, kw_only=True)
    class Config(AdapterConfig):
        """Defaults of AdapterHub."""

        sweep: bool = False
        """Evaluate also without the adapters of the first n blocks, for every n: what AdapterDrop is compared with."""

    config: Config

    def lowest(self, blocks: int) -> int:
        """Every block has an adapter."""
        return 0

    def sweep(self) -> Iterator[dict[str, Any]]:
        """The trained network without its first n adapters, where that is asked."""
        return self.drops() if self.config.sweep else iter(())
