"""What GaLore and APOLLO share: full training whose optimiser sees most matrices in a few dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import nn

from bench.api.method import Batch
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import matricize
from methods.common.config import ProjectedConfig
from methods.full.method import Full

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
"""Layers whose weights are matrices (m, n), a convolution's (m, n·k·k). An embedding is a table and none of them."""


class Projected(Full):
    """Trains everything; the matrices of the backbone are in an optimiser group that names a rank."""

    Config: ClassVar[type[MethodConfig]] = ProjectedConfig
    config: Any

    def adapt(self, batch: Batch) -> None:
        """Nothing is inserted, nothing frozen.

        Raises:
            UsageError: no matrix is large enough to be projected, or another optimiser is asked for.
        """
        if self.optim.name != "adamw":
            raise UsageError(
                f"optim.name={self.optim.name} does not go with {type(self).__name__}",
                "it brings an optimiser of its own, which is AdamW where nothing is projected",
                "Leave optim.name out, or take --method full.",
            )
        super().adapt(batch)
        sides = {name: min(matricize(weight).shape) for name, weight in self._matrices()}
        self._small = [name for name, side in sides.items() if side <= self.config.rank]
        if len(self._small) == len(sides):
            raise UsageError(
                f"method.rank={self.config.rank} projects nothing here",
                f"the longest short side of this backbone's {len(sides)} matrices is {max(sides.values(), default=0)}",
                "Lower method.rank, or take --method full.",
            )

    def param_groups(self) -> list[dict[str, Any]]:
        """The matrices with their rank, and all the rest."""
        large = [weight for _, weight in self._matrices() if min(matricize(weight).shape) > self.config.rank]
        projected = {id(weight) for weight in large}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in projected]
        return [{"params": large, "rank": self.config.rank}, *([{"params": rest}] if rest else [])]

    def report(self) -> dict[str, Any]:
        """How many matrices are projected, and which are too small for it."""
        large = len(self.param_groups()[0]["params"])
        return {"projected_matrices": large, **({"plain_matrices": self._small} if self._small else {})}

    def _matrices(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Trained weights of the backbone's layers by name, each once; one that is tied to an embedding is a table."""
        tables = {id(m.weight) for m in self.backbone.modules() if isinstance(m, nn.Embedding)}
        for name, module in self.backbone.named_modules():
            for key, weight in module.named_parameters(recurse=False) if isinstance(module, LAYERS) else ():
                if weight.ndim > 1 and weight.requires_grad and id(weight) not in tables:
                    tables.add(id(weight))  # shared by several layers: given once
                    yield f"{name}.{key}", weight
