"""Deep LoRA: adds a product of three or more factors, each started orthogonal, to frozen weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api.lowrank.base import Layers, LowRank
from bench.api.lowrank.factored import Base, FactoredLinear, orthogonal
from bench.api.lowrank.peft import lora_adapter
from bench.api.method import Batch
from bench.api.optimizers import ParamGroup, split_groups
from bench.api.peft import PeftAdapter
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.spectra import matricize
from methods.deeplora.config import DeepLoRAConfig


class DeepLoRA(LowRank):
    """Adds a product of three or more factors to frozen layers (see `DeepLoRAConfig`)."""

    Config = DeepLoRAConfig
    config: DeepLoRAConfig

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt the target layers; the compressed form computes one gradient first."""
        self.rank_step = 2 if self.config.form == "compressed" else 1
        super().adapt(batch)
        for factor in self._outer():
            factor.requires_grad_(self.config.gamma > 0)

    def layer_parameters(self, m: int, n: int, rank: int) -> int:
        rank = rank or max(m, n)
        if self.config.form == "full":
            return rank * (m + n) + (self.config.depth - 2) * rank**2
        return (rank * (m + n) if self.config.gamma > 0 else 0) + self.config.depth * rank**2

    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        """Build the layer with its L factors, or the L + 2 of the compressed form, beside it."""
        if self.config.form == "compressed":
            factors = self._compressed.pop(name)
        else:
            (m, n), depth = matricize(base.weight).shape, self.config.depth
            width = rank or max(m, n)
            shapes = [(width, n), *[(width, width)] * (depth - 2), (m, width)]
            factors = [orthogonal(shape, generator) * self.config.init_scale for shape in shapes]
        return FactoredLinear(base, factors, dropout=self.config.dropout)

    def param_groups(self) -> list[ParamGroup]:
        """Return Left and Right at γ times the learning rate, and the rest."""
        return split_groups(self, self._outer() if self.config.gamma else [], self.config.gamma)

    def _outer(self) -> list[nn.Parameter]:
        """Return Left and Right of every layer; nothing in the full form."""
        if self.config.form == "full":
            return []
        return [factor for _, layer in self.layers() for factor in (layer.factors[0], layer.factors[-1])]

    def prepare(self, layers: Layers, batch: Batch, generator: torch.Generator) -> None:
        """Compute the factors Rightᵀ, L times ε·I and Left of every layer of the compressed form from one gradient."""
        self._compressed: dict[str, list[Tensor]] = {}
        if self.config.form == "full":
            return

        def compress(name: str, gradient: Tensor) -> None:
            rank = self.ranks[name]
            start = orthogonal(gradient.shape, generator)  # ΔW(0)/ε^L, not kept
            left, right = outer_factors(gradient.double().cpu(), start, rank // 2)
            inner = torch.eye(rank, dtype=torch.float64) * self.config.init_scale
            middle = [inner.clone() for _ in range(self.config.depth)]
            self._compressed[name] = [right.mT.contiguous(), *middle, left]

        self.with_gradients(layers, batch, compress)

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return the product as a LoRA of scale 1: A is the first factor, B the product of the others."""
        return lora_adapter(tensors, float)


def outer_factors(gradient: Tensor, start: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return Left (m, 2k) and Right (n, 2k), orthonormal, from ∂loss/∂ΔW (m, n) and ΔW(0)/ε^L (m, n), in float64.

    With G ≈ U_k S_k V_kᵀ: Right = orth([V_k, startᵀ U_k]) and Left = start·Right for m ≥ n, else transposed
    (arXiv 2406.04112, section 4).

    Raises:
        UsageError: 2k exceeds the smaller side.
    """
    m, n = gradient.shape
    if 2 * k > min(m, n):
        raise UsageError(
            f"method.rank={2 * k} exceeds a layer of shape {m}×{n}",
            "the compressed form needs r ≤ min(m, n)",
            "Lower method.rank.",
        )
    if m < n:
        right, left = outer_factors(gradient.mT, start.mT, k)
        return left, right
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    right = torch.linalg.qr(torch.cat([vt[:k].mT, start.mT @ u[:, :k]], dim=1)).Q
    return start @ right, right
