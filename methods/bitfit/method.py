"""BitFit: only the biases of the backbone train."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from bench.api.method import Batch, Method
from bench.core.errors import UsageError


class BitFit(Method):
    """b + Δb for every bias b of the backbone, those of normalisations too (Ben-Zaken et al. 2021, arXiv 2106.10199).

    Trains: the biases and the head. Parameters: Σ biases, plus head. No weight moves: there is no ΔW.
    """

    learning_rate: ClassVar[float] = 3e-3
    learning_rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-3, 1e-2)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which biases."""

        target: str = "all"
        """Biases that train: all, or a regular expression searched in the names of their layers; query|intermediate is
        the paper's smaller choice for BERT."""

    config: Config

    def adapt(self, batch: Batch) -> None:
        """Freeze all but the chosen biases.

        Raises:
            UsageError: the expression is broken, or no bias is in a layer that it matches.
        """
        self.backbone.requires_grad_(False)
        target = self.config.target
        try:
            wanted = re.compile("" if target == "all" else target)
        except re.error as error:
            raise UsageError(f"method.target='{target}' is no regular expression", str(error), "Mend it.") from error
        # in_proj_bias, q_bias: some layers hold several
        biases = [(n, p) for n, p in self.backbone.named_parameters() if n.endswith("bias")]
        found = [p for n, p in biases if wanted.search(n.rpartition(".")[0])]
        if not found:
            known = sorted({re.sub(r"\d+", "#", n.rpartition(".")[0]) for n, _ in biases})
            raise UsageError(
                f"method.target='{target}' matches no layer with a bias",
                f"layers with one: {', '.join(known) or 'none in this backbone'}",
                "Use all, or a regular expression that matches some of these.",
            )
        for bias in found:
            bias.requires_grad_(True)
