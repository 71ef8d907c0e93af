"""How far two subspaces are apart, such as those of an update's top singular vectors at two steps."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.spectra.singular import Matrix, finite


def principal_angles(first: Matrix, second: Matrix) -> Tensor:
    """Angles between the column spaces of (…, n, k) and (…, n, l), ascending, in radians (…, min(k, l)), float64.

    Through sine and cosine (Björck and Golub 1973): the arc cosine alone cannot tell angles below 1e-8 from 0. Every
    basis and angle comes from a float64 SVD.

    Raises:
        ValueError: the matrices have different numbers of rows, columns that are linearly dependent (more columns than
            rows, a zero matrix), or a NaN or an infinity.
    """
    left, right = (finite(matrix).double() for matrix in (first, second))
    for matrix in (left, right):
        if matrix.ndim < 2 or matrix.shape[-2] != left.shape[-2] or not 0 < matrix.shape[-1] <= matrix.shape[-2]:
            shapes = f"{tuple(left.shape)} and {tuple(right.shape)}"
            raise ValueError(f"bases of subspaces of one space are needed, not {shapes}")
    wide, thin = (_orthonormal(m) for m in sorted((left, right), key=lambda m: -m.shape[-1]))
    inner = wide.mT @ thin
    cosines = torch.linalg.svdvals(inner).clamp(max=1)
    sines = torch.linalg.svdvals(thin - wide @ inner).flip(-1).clamp(max=1)
    return torch.where(cosines.square() < 0.5, cosines.arccos(), sines.arcsin())


def _orthonormal(basis: Tensor) -> Tensor:
    """An orthonormal basis of the column space, in the same shape (…, n, k)."""
    left, sigma, _ = torch.linalg.svd(basis, full_matrices=False)
    floor = sigma[..., 0] * basis.shape[-2] * torch.finfo(sigma.dtype).eps
    if bool((sigma[..., -1] <= floor).any()):
        raise ValueError(f"{basis.shape[-1]} columns are no basis: they are linearly dependent")
    return left
