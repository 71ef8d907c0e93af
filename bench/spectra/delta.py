"""ΔW of one layer: dense, or as thin factors whose spectrum needs no full-size matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from bench.records.results import LayerRank
from bench.spectra.ranks import summary
from bench.spectra.singular import Spectrum, finite, spectrum


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What training added to a weight (m, n).

    Attributes:
        factors: matrices F_1 … F_k whose product F_1·F_2·…·F_k (m, n) is ΔW; a single one is ΔW itself.
        nominal: the rank that the parametrisation allows.
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
        return reduce(torch.matmul, self.factors)

    def spectrum(self, *, name: str = "", how: Literal["auto", "svd", "gram"] = "auto") -> Spectrum:
        """min(m, n) singular values, or as many as the thinnest factor allows, and which way they were computed.

        Factors go through the QR of the two outer ones: ΔW = Q_l·(R_l·…·R_rᵀ)·Q_rᵀ has the spectrum of its core, which
        takes an SVD. They are exact to 1e-16 of the product of the factors' norms. Of a single factor `how` decides, as
        in `bench.spectra.spectrum`.

        Raises:
            ValueError: an entry is NaN or infinite; begins with `name`.
        """
        if len(self.factors) == 1:
            return spectrum(self.factors[0], name=name, how=how)
        first, *inner, last = (finite(factor, name=name).double() for factor in self.factors)
        left, right = torch.linalg.qr(first, mode="r").R, torch.linalg.qr(last.mT, mode="r").R.mT
        core = reduce(torch.matmul, [left, *inner, right])
        return Spectrum(spectrum(core, how="svd", name=name).values, "factors")

    def left_singular_vectors(self, most: int) -> Tensor:
        """Orthonormal U (m, k), float64, of the k = min(m, n, `most`) largest singular values, descending.

        U·Uᵀ·ΔW is the best approximation of rank k. Of thin factors only as many exist as the thinnest allows.
        """
        first, *others = (factor.double() for factor in self.factors)
        if others:
            *inner, last = others
            left, right = torch.linalg.qr(first), torch.linalg.qr(last.mT, mode="r").R.mT
            core = reduce(torch.matmul, [left.R, *inner, right])
            return left.Q @ torch.linalg.svd(core, full_matrices=False).U[:, :most]
        m, n = first.shape
        vectors = torch.linalg.eigh(first @ first.mT if m <= n else first.mT @ first).eigenvectors.flip(-1)[:, :most]
        return vectors if m <= n else torch.linalg.qr(first @ vectors).Q

    def singular_values(self, *, name: str = "") -> Tensor:
        """Descending, float64: the `values` of `spectrum`."""
        return self.spectrum(name=name).values

    def ranks(self, name: str = "") -> LayerRank:
        """The record's entry of the layer `name`; raises as `spectrum`."""
        sigma, how = self.spectrum(name=name)
        assert how != "given"  # factors are matrices
        return LayerRank(layer=name, shape=self.shape, nominal=self.nominal, how=how, **summary(sigma))
