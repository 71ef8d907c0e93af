"""How far two subspaces are apart, such as those of an update's top singular vectors at two steps."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.spectra.ranks import Matrix


def principal_angles(first: Matrix, second: Matrix) -> Tensor:
    """Angles between the column spaces of (…, n, k) and (…, n, l), ascending, in radians (…, min(k, l)), float64.

    Through sine and cosine (Björck and Golub 1973): the arc cosine alone cannot tell angles below 1e-8 from 0.

    Raises:
        ValueError: the matrices have different numbers of rows, more columns than rows, or a NaN or an infinity.
    """
    one, other = (torch.as_tensor(matrix).double() for matrix in (first, second))
    for matrix in (one, other):
        if matrix.shape[-2] != one.shape[-2] or matrix.shape[-1] > matrix.shape[-2]:
            raise ValueError(f"bases of subspaces of one space are needed, not {one.shape} and {other.shape}")
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("angles need finite entries; a matrix holds a NaN or an infinity")
    wide, thin = (torch.linalg.qr(m).Q for m in sorted((one, other), key=lambda m: -m.shape[-1]))
    inner = wide.mT @ thin
    cosines = torch.linalg.svdvals(inner).clamp(max=1)
    sines = torch.linalg.svdvals(thin - wide @ inner).flip(-1).clamp(max=1)
    return torch.where(cosines.square() < 0.5, cosines.arccos(), sines.arcsin())
