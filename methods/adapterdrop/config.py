"""AdapterDrop: bottleneck adapters that the first n blocks do without, in training and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from methods.common.config import BottleneckConfig


@dataclass(frozen=True, kw_only=True)
class AdapterDropConfig(BottleneckConfig):
    """h ← h + Up(act(Down(h))) after the blocks from number n on, none before (Rücklé et al. 2021, arXiv 2010.11918).

    Specialised (`method.n` given): blocks below n have no adapters, and their output is computed once per training
    example. Robust (none): n ~ U{0, …, L−1} at every step, for the whole batch, so that any n may be chosen afterwards.
    No gradient reaches the blocks below n. The record holds a curve of the score over every n that the adapters allow.
    Trains: Down (b, D), Up (D, b) and their biases in each adapted block, and the head.
    Parameters: Σ over the blocks from n on 2·D·b + b + D, with n = 0 in the robust form, plus head.

    Options: adapters as in AdapterHub, the robust form.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    n: int | None = option(
        None,
        "Blocks from the bottom that do without adapters; none draws their number anew at every step.",
        at_least=0,
    )
    sweep: bool = option(
        True,
        "Evaluate for every number of dropped adapters, and keep the curve in the record.",
    )

    cache: bool = option(
        True,
        "With a fixed n, compute the frozen blocks once per training example instead of once per epoch.",
    )
    cache_mib: int = option(
        2048,
        "Host memory per device that this may take; where it needs more, nothing is cached.",
        at_least=0,
    )
