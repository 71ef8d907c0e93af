"""Rank metrics on singular values, in float64; a zero matrix has rank 0 by each of them and none returns NaN.

Each takes matrices (…, m, n), or with `singular_values=True` their spectra (…, k) in any order, and returns (…). How
the spectrum of a matrix is computed, and which errors it raises, is said in `spectrum`. To know which way it was, or
to name the layer in an error, call `spectrum` once and give its values to the metrics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.spectra.singular import Matrix, finite, spectrum

RANKME_EPS = 1e-7
"""What RankMe adds to every σ/Σσ (arXiv 2210.02885, eq. 1)."""


def stable_rank(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ²/σ₁²."""
    return _relative(matrix, singular_values).square().sum(-1)


def effective_rank(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """exp(H(σ/Σσ)), natural logarithm (Roy & Vetterli 2007)."""
    p = _shares(matrix, singular_values)
    return torch.special.entr(p).sum(-1).exp() * p.any(-1)


def rankme(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """exp(−Σ p·log p) with p = σ/Σσ + 1e-7 (Garrido et al. 2023, arXiv 2210.02885, eq. 1), for features (N, D).

    On singular values, as published: on the eigenvalues of their covariance it is another number. The 1e-7 hides no
    noise of that size, since every σ of it changes the sum by its 15-fold; so the spectrum is as for `effective_rank`.
    """
    p = _shares(matrix, singular_values)
    return torch.special.entr(p + RANKME_EPS).sum(-1).exp() * p.any(-1)


def participation_ratio(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """(Σσ²)²/Σσ⁴: how many directions share the variance."""
    squares = _relative(matrix, singular_values).square()
    return (squares.sum(-1).square() / squares.square().sum(-1)).nan_to_num()


def nuclear_to_frobenius(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ/√Σσ², between 1 and the square root of the rank."""
    sigma = _relative(matrix, singular_values)
    return (sigma.sum(-1) / sigma.square().sum(-1).sqrt()).nan_to_num()


def nuclear_to_spectral(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ/σ₁, between 1 and the rank."""
    return _relative(matrix, singular_values).sum(-1)


def numerical_rank(matrix: Matrix, *, singular_values: bool = False, tolerance: float | None = None) -> Tensor:
    """#{σ > σ₁·tolerance} (int64), by default as numpy's `matrix_rank` has it.

    It looks at the smallest singular values, so it always takes an SVD: the Gram matrix ends at some 1e-8·σ₁.

    `tolerance` is max(m, n)·eps by default, with eps of the matrix's own type (float64's for integers). Of a spectrum
    (…, k), whose m and n are not known, it is k·eps: give it if the matrix was not square or of another type.
    """
    tensor = finite(matrix)
    sigma = spectrum(tensor, singular_values=singular_values, how="svd").values
    if tolerance is None:
        eps = torch.finfo(tensor.dtype if tensor.is_floating_point() else torch.float64).eps
        tolerance = max(tensor.shape[-1:] if singular_values else tensor.shape[-2:]) * eps
    return (sigma > sigma[..., :1] * tolerance).sum(-1)


def energy_rank(matrix: Matrix, energy: float = 0.9, *, singular_values: bool = False) -> Tensor:
    """Least k whose k largest σ² hold at least `energy` of Σσ² (int64)."""
    squares = _relative(matrix, singular_values).square()
    sums = squares.cumsum(-1)
    below = (sums < energy * sums[..., -1:]).sum(-1)
    return (below + 1) * squares.any(-1)


def summary(sigma: Tensor) -> dict[str, Any]:
    """The numbers that records and tables give of one spectrum (k,), by name; `norm` is σ₁.

    All are 0 of an empty one, as of an update whose triplets were all pruned.
    """
    return {
        "stable": float(stable_rank(sigma, singular_values=True)),
        "effective": float(effective_rank(sigma, singular_values=True)),
        "energy90": int(energy_rank(sigma, 0.9, singular_values=True)),
        "norm": float(sigma.max()) if len(sigma) else 0.0,
    }


def _relative(matrix: Matrix, is_spectrum: bool) -> Tensor:
    """σ/σ₁ (…, k), descending; 0/0 is 0 in this module, for zero matrices. So no square under- or overflows."""
    sigma = spectrum(matrix, singular_values=is_spectrum).values
    return (sigma / sigma[..., :1]).nan_to_num()


def _shares(matrix: Matrix, is_spectrum: bool) -> Tensor:
    """σ/Σσ (…, k)."""
    sigma = _relative(matrix, is_spectrum)
    return (sigma / sigma.sum(-1, keepdim=True)).nan_to_num()
