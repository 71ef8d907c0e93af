"""BitFit: trains the biases of the backbone."""

from __future__ import annotations

from typing import ClassVar

from bench.api.method import Batch, Method
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from methods.bitfit.config import BitFitConfig
from methods.common.targets import compile_target, list_names


class BitFit(Method):
    """Trains the biases (see `BitFitConfig`)."""

    Config: ClassVar[type[MethodConfig]] = BitFitConfig

    config: BitFitConfig

    def adapt(self, batch: Batch) -> None:
        """Raises UsageError if the expression is invalid, or no bias is in a layer that it matches."""
        self.backbone.requires_grad_(False)
        target = self.config.target
        wanted = compile_target(target, {"all": ""})
        # some layers have several, such as in_proj_bias and q_bias
        biases = [(n.rpartition(".")[0], p) for n, p in self.backbone.named_parameters() if n.endswith("bias")]
        chosen = [bias for layer, bias in biases if wanted.search(layer)]
        if not chosen:
            raise UsageError(
                f"method.target='{target}' matches no layer with a bias",
                f"layers of this backbone with a bias: {list_names(layer for layer, _ in biases)}",
                "Use all, or a regular expression that matches some of these.",
            )
        for bias in chosen:
            bias.requires_grad_(True)
