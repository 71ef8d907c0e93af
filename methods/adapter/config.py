"""Bottleneck adapters: two thin projections with a residual connection after every block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from methods.common.config import BottleneckConfig


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(BottleneckConfig):
    """h ← h + Up(act(Down(h))) for the output h (D) of every block (Pfeiffer et al. 2020, arXiv 2005.00247).

    One adapter per block, with bottleneck b = D / reduction, D the block's width or number of channels; Up starts at
    zero, so the network starts where the backbone is. Trains: Down (b, D), Up (D, b), their biases, and the head.
    Parameters: Σ over the blocks 2·D·b + b + D, plus head.

    Options: defaults of AdapterHub.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    sweep: bool = option(
        False,
        "Evaluate also without the adapters of the first n blocks, for every n: what AdapterDrop is compared with.",
    )
