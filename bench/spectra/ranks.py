"""Rank metrics on singular values, in float64; a zero matrix has rank 0 by each of them and none returns NaN."""

from __future__ import annotations

import torch
from torch import Tensor

Matrix = Tensor
"""(…, m, n), or with `singular_values=True` its spectrum (…, k), in any order."""


def singular_values(matrix: Matrix) -> Tensor:
    """Singular values (…, min(m, n)), descending, float64.

    A float64 input takes an SVD. Lower precisions take the square roots of the Gram matrix's eigenvalues in float64:
    as fast as a float32 SVD, and its floor of 1e-8·σ₁ lies below what a float32 matrix can hold.

    Raises:
        ValueError: the matrix holds a NaN or an infinity.
    """
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
