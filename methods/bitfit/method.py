"""BitFit: trains the biases of the backbone."""

from __future__ import annotations

from bench.api.lowrank.targets import match_names
from bench.api.method import Batch, Method
from methods.bitfit.config import BitFitConfig


class BitFit(Method):
    """Trains the biases (see `BitFitConfig`)."""

    Config = BitFitConfig
    config: BitFitConfig

    def adapt(self, batch: Batch) -> None:
        """Raises UsageError if the expression is invalid, or no bias is in a layer that it matches."""
        self.backbone.requires_grad_(False)
        # some layers have several, such as in_proj_bias and q_bias
        biases = [(n.rpartition(".")[0], p) for n, p in self.backbone.named_parameters() if n.endswith("bias")]
        known = "layers of this backbone with a bias:"
        self._biases = [b for _, b in match_names(self.config.target, biases, "layer with a bias", known)]
        for bias in self._biases:
            bias.requires_grad_(True)

    def expected_parameters(self) -> int | None:
        return sum(len(bias) for bias in self._biases)
