"""Rank metrics on singular values, in float64; a zero matrix has rank 0 by each of them and none returns NaN."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Matrix = Tensor | np.ndarray
"""(…, m, n), or with `singular_values=True` its spectrum (…, k), in any order; torch or numpy."""
RANKME_EPS = 1e-7
"""What RankMe adds to every σ/Σσ (arXiv 2210.02885, eq. 1)."""


def singular_values(matrix: Matrix) -> Tensor:
    """Singular values (…, min(m, n)), descending, float64.

    A float64 input takes an SVD. Lower precisions take the square roots of the Gram matrix's eigenvalues in float64:
    as fast as a float32 SVD, and its floor of 1e-8·σ₁ lies below what a float32 matrix can hold.

    Raises:
        ValueError: the matrix holds a NaN or an infinity.
    """
    matrix = torch.as_tensor(matrix)
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("a spectrum needs finite entries; the matrix holds a NaN or an infinity")
    if matrix.dtype == torch.float64:
        return torch.linalg.svdvals(matrix)
    wide = matrix.detach().double()
    gram = wide @ wide.mT if wide.shape[-2] <= wide.shape[-1] else wide.mT @ wide
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(-1)


def stable_rank(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ²/σ₁²."""
    sigma = _spectrum(matrix, singular_values)
    top = sigma.amax(-1)
    return (sigma / _or_one(top)[..., None]).square().sum(-1)


def effective_rank(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """exp(H(σ/Σσ)), natural logarithm (Roy & Vetterli 2007)."""
    sigma = _spectrum(matrix, singular_values)
    total = sigma.sum(-1)
    p = sigma / _or_one(total)[..., None]
    entropy = torch.special.entr(p).sum(-1)
    return torch.where(total > 0, entropy.exp(), torch.zeros_like(total))


def rankme(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """exp(−Σ p·log p) with p = σ/Σσ + 1e-7 (Garrido et al. 2023, arXiv 2210.02885, eq. 1), for features (N, D).

    On singular values, as published: on the eigenvalues of their covariance it is another number.
    """
    sigma = _spectrum(matrix, singular_values)
    total = sigma.sum(-1)
    p = sigma / _or_one(total)[..., None] + RANKME_EPS
    return torch.where(total > 0, torch.special.entr(p).sum(-1).exp(), torch.zeros_like(total))


def participation_ratio(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """(Σσ²)²/Σσ⁴: how many directions share the variance."""
    sigma = _spectrum(matrix, singular_values)
    squares = (sigma / _or_one(sigma.amax(-1))[..., None]).square()
    return squares.sum(-1).square() / _or_one(squares.square().sum(-1))


def nuclear_to_frobenius(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ/√Σσ², between 1 and the square root of the rank."""
    sigma = _spectrum(matrix, singular_values)
    scaled = sigma / _or_one(sigma.amax(-1))[..., None]
    return scaled.sum(-1) / _or_one(scaled.square().sum(-1).sqrt())


def nuclear_to_spectral(matrix: Matrix, *, singular_values: bool = False) -> Tensor:
    """Σσ/σ₁, between 1 and the rank."""
    sigma = _spectrum(matrix, singular_values)
    return (sigma / _or_one(sigma.amax(-1))[..., None]).sum(-1)


def numerical_rank(matrix: Matrix) -> Tensor:
    """#{σ > σ₁·max(m, n)·eps}, eps of the matrix's own precision, as numpy's `matrix_rank` has it (int64).

    It looks at the smallest singular values, so it always takes an SVD in float64: the Gram matrix ends at 1e-8·σ₁.

    Raises:
        ValueError: the matrix holds a NaN or an infinity.
    """
    matrix = torch.as_tensor(matrix)
    sigma = singular_values(matrix.double())
    eps = torch.finfo(matrix.dtype).eps if matrix.is_floating_point() else torch.finfo(torch.float64).eps
    return (sigma > sigma.amax(-1, keepdim=True) * max(matrix.shape[-2:]) * eps).sum(-1)


def energy_rank(matrix: Matrix, energy: float = 0.9, *, singular_values: bool = False) -> Tensor:
    """Least k whose k largest σ² hold at least `energy` of Σσ² (int64)."""
    sigma = _spectrum(matrix, singular_values).sort(-1, descending=True).values
    top = sigma[..., :1]
    squares = (sigma / _or_one(top)).square()
    share = squares.cumsum(-1) / _or_one(squares.sum(-1, keepdim=True))
    below = (share < energy).sum(-1)
    return torch.where(top[..., 0] > 0, below + 1, torch.zeros_like(below))


def _spectrum(matrix: Matrix, is_spectrum: bool) -> Tensor:
    matrix = torch.as_tensor(matrix)
    return matrix.double() if is_spectrum else singular_values(matrix)


def _or_one(value: Tensor) -> Tensor:
    """`value`, or 1 where it is 0: what is divided by it is then 0 already."""
    return torch.where(value > 0, value, torch.ones_like(value))
