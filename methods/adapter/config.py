"""Bottleneck adapters: adds two thin layers with a residual connection after every block."""

from __future__ import annotations

from dataclasses import dataclass

from bench.config.options import option
from methods.common.config import BottleneckConfig


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(BottleneckConfig):
    """Replaces the output h (D) of every block by h + Up(act(Down(h))); the backbone stays frozen.

    Each block has its own adapter with bottleneck b = D / reduction, where D is the block's width or number of
    channels. Up starts at zero, so training starts from the backbone's own function.
    Trains: Down (b, D), Up (D, b), their biases, and the head.
    Parameters: Σ over the blocks 2·D·b + b + D, plus head.
    Source: Pfeiffer et al. 2020, arXiv 2005.00247. Defaults: those of AdapterHub.
    """

    sweep: bool = option(
        False, "Evaluate also without the adapters of the first n blocks, for every n, to compare with AdapterDrop."
    )
