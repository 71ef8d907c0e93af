"""Matrices of known singular values and inputs that are whitened exactly, the same bits on every machine.

LAPACK and BLAS are not used: their last bits depend on the machine. Random numbers come from the bits of PCG64 by
additions alone, scalar products are rounded once (`math.fsum`), and products of matrices are sums of outer products in
a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def stream(seed: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one purpose: drawing more or fewer for one does not change another's."""
    return np.random.Generator(np.random.PCG64([seed, purpose]))


def normal(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw nearly normal numbers of mean 0 and variance 1: sums of twelve uniform ones less six, without logarithms."""
    total = np.zeros(shape)
    for _ in range(12):
        total += draw.random(shape)
    return total - 6


def orthonormal(draw: np.random.Generator, n: int, r: int) -> np.ndarray:
    """Draw (n, r) with orthonormal columns, by Gram-Schmidt with each step taken twice."""
    found = np.zeros((n, r))
    for i in range(r):
        column = normal(draw, n)
        for _ in range(2):  # one step is inexact where a column nearly lies in the span of those before
            for before in found[:, :i].T:
                column = column - math.fsum(column * before) * before
        found[:, i] = column / math.sqrt(math.fsum(column * column))
    return found


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply (p, q) by (q, s)."""
    total = np.zeros((len(left), right.shape[1]))
    for column, row in zip(left.T, right, strict=True):
        total += np.outer(column, row)
    return total


def of_spectrum(draw: np.random.Generator, m: int, n: int, values: Sequence[float], *, diagonal: bool) -> np.ndarray:
    """Draw (m, n) with these singular values (at most min(m, n), the others are 0), float64.

    Args:
        draw: draws the singular vectors.
        m: rows.
        n: columns.
        values: in decreasing order.
        diagonal: whether the singular vectors are unit vectors; else they point in random directions.
    """
    r = len(values)
    if diagonal:
        matrix = np.zeros((m, n))
        matrix[range(r), range(r)] = values
        return matrix
    left, right = orthonormal(draw, m, r), orthonormal(draw, n, r)
    return product(left * np.array(values), right.T)


def block(n: int) -> int:
    """Return the smallest power of two ≥ n: `whitened` inputs come in multiples of it."""
    return 1 << (n - 1).bit_length()


def whitened(draw: np.random.Generator, samples: int, n: int) -> np.ndarray:
    """Draw inputs (N, n) of ±1 with XᵀX = N·I, in any arithmetic: columns of Hadamard matrices under random signs.

    Args:
        draw: chooses columns and signs.
        samples: N, a multiple of `block(n)`.
        n: numbers in an input.
    """
    hadamard = np.ones((1, 1))
    while len(hadamard) < n:  # Sylvester's: [[H, H], [H, −H]]
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    parts: list[np.ndarray] = []
    for _ in range(samples // len(hadamard)):
        columns = draw.permutation(len(hadamard))[:n]
        signs = 2 * draw.integers(0, 2, size=(len(hadamard), 1)) - 1  # one an example; XᵀX does not depend on them
        parts.append(hadamard[:, columns] * signs)
    return np.concatenate(parts)


def observed(draw: np.random.Generator, m: int, n: int, fraction: float) -> np.ndarray:
    """Draw which entries of (m, n) are observed, bool: that share of them, at least one and not all."""
    count = min(max(round(fraction * m * n), 1), m * n - 1)
    mask = np.zeros(m * n, dtype=bool)
    mask[draw.permutation(m * n)[:count]] = True
    return mask.reshape(m, n)
