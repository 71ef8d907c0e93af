"""Rank metrics on singular values, in float64; a zero matrix has rank 0 by each of them and none returns NaN.

Each takes matrices (…, m, n), or with `singular_values=True` their spectra (…, k) in any order, and returns (…). How
the spectrum of a matrix is computed, and which errors it raises, is said in `spectrum`. To know which way it was, or
to name the layer in an error, call `spectrum` once and give its values to the metrics.
"""

from __future__ import annotations

from typing import NamedTuple

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
    p, total = _shares(matrix, singular_values)
    return torch.where(total > 0, torch.special.entr(p).sum(-1).exp(), 0.0)


def rankme(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """exp(−Σ p·log p) with p = σ/Σσ + 1e-7 (Garrido et al. 2023, arXiv 2210.02885, eq. 1), for features (N, D).

    On singular values, as published: on the eigenvalues of their covariance it is another number. The 1e-7 hides no
    noise of that size, since every σ of it changes the sum by its 15-fold; so the spectrum is as for `effective_rank`.
    """
    p, total = _shares(matrix, singular_values)
    return torch.where(total > 0, torch.special.entr(p + RANKME_EPS).sum(-1).exp(), 0.0)


def participation_ratio(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """(Σσ²)²/Σσ⁴: how many directions share the variance."""
    squares = _relative(matrix, singular_values).square()
    return squares.sum(-1).square() / _or_one(squares.square().sum(-1))


def nuclear_to_frobenius(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ/√Σσ², between 1 and the square root of the rank."""
    sigma = _relative(matrix, singular_values)
    return sigma.sum(-1) / _or_one(sigma.square().sum(-1).sqrt())


def nuclear_to_spectral(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ/σ₁, between 1 and the rank."""
    return _relative(matrix, singular_values).sum(-1)


def numerical_rank(matrix: Matrix, *, singular_values: bool = False, tolerance: float | None = None) -> Tensor:
    """#{σ > σ₁·tolerance} (int64), by default as numpy's `matrix_rank` has it.

    It looks at the smallest singular values, so it always takes an SVD: the Gram matrix ends at some 1e-8·σ₁.

    Args:
        matrix: (…, m, n), or its spectrum (…, k).
        singular_values: `matrix` is a spectrum.
        tolerance: max(m, n)·eps where it is not given, with eps of the matrix's own type (float64's for integers). Of
            a spectrum of k values, whose m and n are not known, k·eps: give it if that was not a square matrix, or one
            of another type.

    Raises:
        ValueError: as `spectrum`.
    """
    tensor = finite(matrix)
    sigma = spectrum(tensor, singular_values=singular_values, how="svd").values
    if tolerance is None:
        eps = torch.finfo(tensor.dtype if tensor.is_floating_point() else torch.float64).eps
        tolerance = max(tensor.shape[-1:] if singular_values else tensor.shape[-2:]) * eps
    return (sigma > _top(sigma) * tolerance).sum(-1)


def energy_rank(matrix: Matrix, energy: float = 0.9, *, singular_values: bool = False) -> Tensor:
    """Least k whose k largest σ² hold at least `energy` of Σσ² (int64)."""
    squares = _relative(matrix, singular_values).square()
    sums = squares.cumsum(-1)
    below = (sums < energy * sums[..., -1:]).sum(-1)
    return torch.where(squares.sum(-1) > 0, below + 1, 0)


class RankSummary(NamedTuple):
    """What records and tables say of every spectrum; `norm` is σ₁."""

    stable: float
    effective: float
    energy90: int
    norm: float


def summary(sigma: Tensor) -> RankSummary:
    """The numbers of one spectrum (k,)."""
    return RankSummary(
        stable=float(stable_rank(sigma, singular_values=True)),
        effective=float(effective_rank(sigma, singular_values=True)),
        energy90=int(energy_rank(sigma, 0.9, singular_values=True)),
        norm=float(sigma.max()),
    )


def _relative(matrix: Matrix, is_spectrum: bool) -> Tensor:
    """σ/σ₁ (…, k), descending; zeros for a zero matrix. So no square under- or overflows."""
    sigma = spectrum(matrix, singular_values=is_spectrum).values
    return sigma / _or_one(_top(sigma))


def _shares(matrix: Matrix, is_spectrum: bool) -> tuple[Tensor, Tensor]:
    """σ/Σσ (…, k) and Σσ/σ₁ (…)."""
    sigma = _relative(matrix, is_spectrum)
    total = sigma.sum(-1)
    return sigma / _or_one(total)[..., None], total


def _top(sigma: Tensor) -> Tensor:
    """σ₁ (…, 1); (…, 0) of an empty matrix."""
    return sigma[..., :1]


def _or_one(value: Tensor) -> Tensor:
    """`value`, or 1 where it is 0: what is divided by it is then 0 already."""
    return torch.where(value > 0, value, torch.ones_like(value))
