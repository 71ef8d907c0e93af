"""AdapterDrop: bottleneck adapters that the first n blocks do without."""

from __future__ import annotations

from dataclasses import dataclass

from bench.config.options import option
from methods.common.config import BottleneckConfig


@dataclass(frozen=True, kw_only=True)
class AdapterDropConfig(BottleneckConfig):
    """Replaces h by h + Up(act(Down(h))) after every block from number n on; the blocks before have no adapter.

    Specialised, `n` given: blocks below n never have adapters, and their output is computed once per training example.
    Robust, `n=none`: every step draws n ~ U{0, …, L−1} for the whole batch, so that any n may be chosen afterwards. No
    gradient reaches the blocks below n. The record holds a curve of the score over every n that the adapters allow.
    Trains: Down (b, D), Up (D, b) and their biases in each adapted block, and the head.
    Parameters: Σ over the blocks from n on 2·D·b + b + D, with n = 0 in the robust form, plus head.
    Source: Rücklé et al. 2021, arXiv 2010.11918. Defaults: adapters as in AdapterHub, in the robust form.
    """

    n: int | None = option(
        None, "Number of first blocks without adapters; none draws it anew at every step.", at_least=0
    )
    sweep: bool = option(True, "Evaluate without the first n adapters for every n, and keep the curve in the record.")

    cache: bool = option(
        True, "With a fixed n, compute the frozen blocks once per training example instead of once per epoch."
    )
    cache_mib: int = option(
        2048, "Host memory in MiB per device that the cache may take; if it needs more, nothing is cached.", at_least=0
    )
