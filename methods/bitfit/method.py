"""BitFit: only the biases of the backbone train."""

from __future__ import annotations

import re
from typing import ClassVar

from bench.api.method import Batch, Method
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from methods.bitfit.config import BitFitConfig


class BitFit(Method):
    """Trains the biases (see `BitFitConfig`)."""

    Config: ClassVar[type[MethodConfig]] = BitFitConfig

    config: BitFitConfig

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
