"""Low-rank training: every weight is a product of two thin factors from the first step on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, cast

from torch import Tensor

from bench.api.method import Batch, Method
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import Delta, matricize
from methods.common.lowrank import replace
from methods.lowrank.config import LowRankConfig
from methods.lowrank.factors import LAYERS, Factors, Layer, why_whole


class LowRankTraining(Method):
    """Replaces layers by products U·V; equations are in `LowRankConfig`."""

    saves_adapter: ClassVar[bool] = False

    Config: ClassVar[type[MethodConfig]] = LowRankConfig

    config: LowRankConfig

    def adapt(self, batch: Batch) -> None:
        """Put products in the layers' places.

        Raises:
            UsageError: the expression is broken or matches no layer, or the rank saves nothing in any of them.
        """
        rank = self.config.rank
        found = self._found()
        whole = {name: why_whole(layer, rank) for name, layer in found}
        self._whole = [
            {"layer": name, "shape": "×".join(map(str, matricize(layer.weight).shape)), "whole_because": whole[name]}
            for name, layer in found
            if whole[name]
        ]
        if len(self._whole) == len(found):
            names = ", ".join(f"{row['layer']} ({row['shape']}: {row['whole_because']})" for row in self._whole[:4])
            raise UsageError(
                f"method.rank={rank} makes no layer smaller",
                f"of {len(found)} layers all stay whole, such as {names}",
                "Lower method.rank, or take --method full.",
            )
        for name, layer in found:
            if not whole[name]:
                replace(self.backbone, name, Factors(layer, rank))

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """W(t) − W(0) of every product."""
        return ((name, layer.update().detach()) for name, layer in self.layers())

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        """W(0), and W(t) − W(0) with its history."""
        for name, layer in self.layers():
            u0, v0 = layer.start()
            yield name, u0 @ v0, layer.update()

    def report(self) -> dict[str, Any]:
        """How many layers are products, and which are not."""
        made = sum(1 for _ in self.layers())
        return {"factored_layers": made, **({"whole_layers": self._whole} if self._whole else {})}

    def layers(self) -> Iterator[tuple[str, Factors]]:
        """The products by name, in the order of the network."""
        return ((name, m) for name, m in self.backbone.named_modules() if isinstance(m, Factors))

    def _found(self) -> list[tuple[str, Layer]]:
        """Linear layers and convolutions that `target` names."""
        target = self.config.target
        try:
            wanted = re.compile("" if target == "all" else target)
        except re.error as error:
            raise UsageError(f"method.target='{target}' is no regular expression", str(error), "Mend it.") from error
        layers = [(n, cast(Layer, m)) for n, m in self.backbone.named_modules() if isinstance(m, LAYERS)]
        found = [(n, m) for n, m in layers if wanted.search(n)]
        if not found:
            names = sorted({re.sub(r"\d+", "#", n) for n, _ in layers})
            raise UsageError(
                f"method.target='{target}' matches no linear layer or convolution of this backbone",
                f"it has {', '.join(names) or 'none'}",
                "Use all, or a regular expression that matches some of these.",
            )
        return found
