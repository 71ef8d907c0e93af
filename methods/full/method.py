"""Full fine-tuning: every parameter of the backbone trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn

from bench.api.method import Batch, Method
from bench.config.sections import MethodConfig
from bench.spectra import Delta, matricize
from methods.full.config import FullConfig


class Full(Method):
    """Trains everything; ΔW is the difference from the start (see `FullConfig`)."""

    saves_adapter: ClassVar[bool] = False
    saves_backbone: ClassVar[Literal["never", "asked", "always"]] = "asked"

    Config: ClassVar[type[MethodConfig]] = FullConfig

    def adapt(self, batch: Batch) -> None:
        """Keep the weights as they were, on the CPU, to measure ΔW at the end."""
        self._start: dict[str, Tensor] = {n: w.detach().cpu().clone() for n, w in self._weights()}

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """W(t) − W(0) of every linear layer and convolution."""
        for name, weight in self._weights():
            difference = weight.detach().cpu() - self._start[name].cpu()
            yield name, Delta(factors=(difference,), nominal=min(difference.shape))

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        """W(0), from now on where the weight is, and W(t) − W(0)."""
        for name, weight in self._weights():
            start = self._start[name] = self._start[name].to(weight)
            yield name, start, Delta(factors=(weight - start,), nominal=min(start.shape))

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Weights as matrices, by name of their layer."""
        for name, module in self.backbone.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.requires_grad:
                yield name, matricize(module.weight)
