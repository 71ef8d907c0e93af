"""ΔW of one layer: dense, or as thin factors whose spectrum needs no full-size matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.spectra.ranks import effective_rank, energy_rank, singular_values, stable_rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What training added to a weight (m, n).

    Attributes:
        factors: matrices F_1 … F_k whose product F_1·F_2·…·F_k (m, n) is ΔW; a single one is ΔW itself.
        nominal: the rank the parametrisation allows.
    """

    factors: tuple[Tensor, ...]
    nominal: int

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.factors[0].shape[0], self.factors[-1].shape[1]

    def detach(self) -> Delta:
        """The same without its history."""
        return replace(self, factors=tuple(factor.detach() for factor in self.factors))

    def dense(self) -> Tensor:
        """ΔW (m, n), in the factors' precision."""
        product = self.factors[0]
        for factor in self.factors[1:]:
            product = product @ factor
        return product

    def singular_values(self) -> Tensor:
        """Descending, float64: min(m, n) of them, or as many as the thinnest factor allows.

        Factors go through the QR of the two outer ones: ΔW = Q_l·(R_l·…·R_rᵀ)·Q_rᵀ has the spectrum of its core.
        """
        if len(self.factors) == 1:
            return singular_values(self.factors[0])
        first, *inner, last = (f.detach().double() for f in self.factors)
        core = torch.linalg.qr(first, mode="r").R
        for factor in inner:
            core = core @ factor
        return torch.linalg.svdvals(core @ torch.linalg.qr(last.mT, mode="r").R.mT)

    def ranks(self) -> dict[str, float | int | list[int]]:
        """The record's entry: shape, nominal, stable, effective and 90 % energy rank, and the spectral norm."""
        sigma = self.singular_values()
        return {
            "shape": list(self.shape),
            "nominal": self.nominal,
            "stable": float(stable_rank(sigma, singular_values=True)),
            "effective": float(effective_rank(sigma, singular_values=True)),
            "energy90": int(energy_rank(sigma, 0.9, singular_values=True)),
            "norm": float(sigma.max()),
        }
