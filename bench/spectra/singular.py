"""Singular values in float64, with the way they were computed, and the error that names the matrix."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Matrix = Tensor | np.ndarray
"""(…, m, n), or with `singular_values=True` its spectrum (…, k), in any order; torch or numpy, any real type."""
How = Literal["svd", "gram", "factors", "given"]
"""The SVD of the matrix; its Gram matrix's eigenvalues; the QR of its factors; or it was a spectrum already."""
GRAM_FLOOR = 1e-5
"""Of σ₁. The Gram matrix is off by some 1e-16·σ₁² in every σ², so by at most some 1e-11·σ₁ in a σ above this."""

Weight = TypeVar("Weight", Tensor, np.ndarray)


class Spectrum(NamedTuple):
    """Singular values (…, k), descending, float64, without history, and the way they were computed."""

    values: Tensor
    how: How


def spectrum(
    matrix: Matrix, *, singular_values: bool = False, how: Literal["auto", "svd", "gram"] = "auto", name: str = ""
) -> Spectrum:
    """The min(m, n) singular values of every matrix (m, n), and which way they were computed.

    `auto` takes a float64 SVD, but for float32 or lower the float64 Gram matrix where that is as good: where all its
    singular values lie above 1e-5·σ₁. What lies lower drowns in its noise of some 1e-8·σ₁, which made the effective
    rank of low-rank float32 matrices (768, 768) wrong by up to 2e-5 of it; above, no metric differs by 1e-9 of it.

    Args:
        matrix: (…, m, n), or its spectrum.
        singular_values: `matrix` is a spectrum (…, k), in any order.
        how: `svd` for what looks at the smallest singular values; `gram` for what does not, at any condition.
        name: of the layer, for the error.

    Raises:
        ValueError: an entry is NaN, infinite or complex, or a given singular value is negative; begins with `name`.
    """
    tensor = finite(matrix, name=name)
    if tensor.ndim < (1 if singular_values else 2):
        raise ValueError(f"{_prefix(name)}a matrix (…, m, n) is needed, not a shape {tuple(tensor.shape)}")
    wide = tensor.double()
    if singular_values:
        if bool((wide < 0).any()):
            raise ValueError(f"{_prefix(name)}a singular value is not negative; the least is {float(wide.min())}")
        return Spectrum(wide.sort(-1, descending=True).values, "given")
    low = tensor.is_floating_point() and tensor.dtype.itemsize < torch.float64.itemsize
    if tensor.numel() and (how == "gram" or (how == "auto" and low)):
        gram = wide @ wide.mT if wide.shape[-2] <= wide.shape[-1] else wide.mT @ wide
        sigma = gram_spectrum(gram)
        if how == "gram" or bool((sigma[..., -1] >= GRAM_FLOOR * sigma[..., 0]).all()):
            return Spectrum(sigma, "gram")
    return Spectrum(torch.linalg.svdvals(wide), "svd")


def singular_values(matrix: Matrix, *, name: str = "") -> Tensor:
    """Singular values (…, min(m, n)), descending, float64: the `values` of `spectrum`, which names the errors."""
    return spectrum(matrix, name=name).values


def gram_spectrum(gram: Tensor) -> Tensor:
    """Square roots (…, k) of the eigenvalues of Gram matrices (…, k, k), descending, with a floor of 1e-8·σ₁."""
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(-1)


def matricize(weight: Weight) -> Weight:
    """A layer's weight as the matrix (out, ·) whose spectrum counts: a convolution (out, in, k, k) as (out, in·k·k).

    That is the linear map of a patch. A weight (out, in) is itself; of g groups the matrix is (out, in/g·k·k).

    Raises:
        ValueError: a vector or a number is no map.
    """
    if weight.ndim < 2:
        raise ValueError(f"a weight of two axes or more is needed, not a shape {tuple(weight.shape)}")
    return weight.reshape(weight.shape[0], int(np.prod(weight.shape[1:])))


def finite(matrix: Matrix, *, name: str = "") -> Tensor:
    """The matrix as a tensor without history.

    Raises:
        ValueError: an entry is NaN, infinite or complex; begins with `name`, and says how many are, and where one is.
    """
    if isinstance(matrix, np.ndarray):
        plain = matrix.flags.writeable and all(stride >= 0 for stride in matrix.strides)
        matrix = torch.as_tensor(matrix if plain else matrix.copy())  # torch takes no negative strides
    tensor = matrix.detach()
    if tensor.is_complex():
        raise ValueError(f"{_prefix(name)}a spectrum needs real entries, not {tensor.dtype}")
    bad = ~torch.isfinite(tensor)
    if bool(bad.any()):
        first = bad.nonzero()[0].tolist()
        many = f"{int(bad.sum())} of its {bad.numel()} are NaN or infinite, the first at {first}"
        raise ValueError(f"{_prefix(name)}a spectrum needs finite entries; {many}")
    return tensor


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""
