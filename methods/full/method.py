"""Full fine-tuning: trains every parameter of the backbone."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from bench.api.lowrank.targets import list_names
from bench.api.method import Batch, Method
from bench.spectra import Delta
from bench.spectra.layers import has_matrix, layer_matrix
from methods.full.config import FullConfig


class Full(Method):
    """Trains everything; ΔW is the difference from the start (see `FullConfig`)."""

    saves_adapter = False
    saves_backbone = "asked"
    Config = FullConfig

    def adapt(self, batch: Batch) -> None:
        """Keep W(0) on the CPU, to measure ΔW at the end."""
        self._initial: dict[str, Tensor] = {n: w.detach().cpu().clone() for n, w in self._weights()}

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        for name, weight in self._weights():
            difference = weight.detach().cpu() - self._initial[name].cpu()
            yield name, Delta(factors=(difference,), nominal=min(difference.shape))

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        """Yield W(0), which moves to the weight's device, and W(t) − W(0)."""
        for name, weight in self._weights():
            initial = self._initial[name] = self._initial[name].to(weight)
            yield name, initial, Delta(factors=(weight - initial,), nominal=min(initial.shape))

    def expected_parameters(self) -> int | None:
        return sum(p.numel() for p in self.backbone.parameters())

    def report(self) -> dict[str, object]:
        """Name the trained tensors of two axes or more whose ΔW is not measured, such as embeddings."""
        measured = {id(self.backbone.get_submodule(name).get_parameter("weight")) for name, _ in self._weights()}
        trained = [(name, p) for name, p in self.backbone.named_parameters() if p.requires_grad and p.ndim > 1]
        unmeasured = [name for name, p in trained if id(p) not in measured]
        return {"trained_without_delta": list_names(unmeasured)} if unmeasured else {}

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the trained weights as matrices, by name of their layer."""
        for name, module in self.backbone.named_modules():
            if has_matrix(module) and (weight := module.get_parameter("weight")).requires_grad:
                yield name, layer_matrix(module, weight)
