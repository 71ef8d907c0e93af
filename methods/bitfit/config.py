"""BitFit: trains the biases of the backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class BitFitConfig(MethodConfig):
    """Trains b + Δb for every bias b of the backbone, those of normalisations included.

    No weight matrix changes, so there is no ΔW.
    Trains: the biases and the head.
    Parameters: Σ biases, plus head.
    Source: Ben-Zaken et al. 2021, arXiv 2106.10199.
    """

    learning_rate: ClassVar[float] = 3e-3
    learning_rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-3, 1e-2)

    target: str = option(
        "all",
        "Biases that train: all, or a regular expression searched in the names of their layers; "
        "query|intermediate is the paper's smaller choice for BERT.",
    )
