"""Deep LoRA: the update is a product of three or more orthogonal-start factors, optionally compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.api.method import Batch, Peft
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from methods.common import peft
from methods.common.lowrank import Base, FactoredLinear, LowRank, matrix, orthogonal
from methods.deeplora.config import DeepLoRAConfig


class DeepLoRA(LowRank):
    """Adds a product of three or more factors to frozen layers; equations are in `DeepLoRAConfig`."""

    Config: ClassVar[type[MethodConfig]] = DeepLoRAConfig

    config: DeepLoRAConfig

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt the target layers; the compressed form looks at one gradient first."""
        self.rank_step = 2 if self.config.form == "compressed" else 1
        super().adapt(batch)
        for factor in self._outer():
            factor.requires_grad_(self.config.gamma > 0)

    def cost(self, m: int, n: int, rank: int) -> int:
        """Of the factors that train."""
        if self.config.form == "full":
            return rank * (m + n) + (self.config.depth - 2) * rank**2
        return (rank * (m + n) if self.config.gamma > 0 else 0) + self.config.depth * rank**2

    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """The layer with its L factors, or the L + 2 of the compressed form, beside it."""
        made = self._compressed.pop(name) if self.config.form == "compressed" else self._factors(base, rank, generator)
        return FactoredLinear(base, made, dropout=self.config.dropout)

    def param_groups(self) -> list[dict[str, Any]]:
        """Left and Right at γ times the learning rate, the rest at the learning rate."""
        outer = self._outer()
        slow = {id(p) for p in outer}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in slow]
        groups: list[dict[str, Any]] = [{"params": rest}]
        return [*groups, {"params": outer, "lr_scale": self.config.gamma}] if outer and self.config.gamma else groups

    def _outer(self) -> list[nn.Parameter]:
        """Left and Right of every layer; none in the full form."""
        if self.config.form == "full":
            return []
        return [factor for _, layer in self.layers() for factor in (layer.factors[0], layer.factors[-1])]

    def _factors(self, base: Base, rank: int | None, generator: torch.Generator) -> list[Tensor]:
        (m, n), depth = matrix(base).shape, self.config.depth
        width = rank or max(m, n)
        shapes = [(width, n), *[(width, width)] * (depth - 2), (m, width)]
        return [orthogonal(shape, generator) * self.config.init_scale for shape in shapes]

    def prepare(
        self,
        found: Sequence[tuple[str, Base]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        """Compressed form: factors Rightᵀ, ε·I × L, Left of every layer, from the gradient of `batch`."""
        self._compressed: dict[str, list[Tensor]] = {}
        if self.config.form == "full":
            return

        def keep(name: str, gradient: Tensor) -> None:
            rank = ranks[name] or 0
            start = orthogonal(gradient.shape, generator)  # ΔW(0)/ε^L, dropped after this layer
            left, right = outer_factors(gradient.double().cpu(), start, rank // 2)
            inner = torch.eye(rank, dtype=torch.float64) * self.config.init_scale
            middle = [inner.clone() for _ in range(self.config.depth)]
            self._compressed[name] = [right.mT.contiguous(), *middle, left]

        self.with_gradients(found, batch, keep)

    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Peft:
        """The product as a LoRA of scale 1: A is the first factor, B the product of the others."""
        return peft.lora(tensors, float)


def outer_factors(gradient: Tensor, start: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Left (m, 2k) and Right (n, 2k), orthonormal, from ∂loss/∂ΔW (m, n) and ΔW(0)/ε^L (m, n).

    With G ≈ U_k S_k V_kᵀ: Right = orth([V_k, startᵀ U_k]) and Left = start·Right for m ≥ n, and transposed else
    (arXiv 2406.04112, section 4). All in float64.

    Raises:
        UsageError: 2k exceeds the smaller side.
    """
    m, n = gradient.shape
    if 2 * k > min(m, n):
        raise UsageError(
            f"method.rank={2 * k} exceeds a layer of shape {m}×{n}",
            "the compressed form needs r ≤ min(m, n)",
            "Lower it.",
        )
    if m < n:
        right, left = outer_factors(gradient.mT, start.mT, k)
        return left, right
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    right = torch.linalg.qr(torch.cat([vt[:k].mT, start.mT @ u[:, :k]], dim=1)).Q
    return start @ right, right
