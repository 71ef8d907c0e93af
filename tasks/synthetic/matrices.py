"""Matrices of known singular values and inputs that are whitened exactly, the same bits on every machine.

No LAPACK and no BLAS: their last bits depend on the machine. What is drawn comes from the bits of PCG64 by additions
alone, scalar products are rounded once (`math.fsum`), and products of matrices are sums of outer products in a fixed
order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def stream(seed: int, purpose: int) -> np.random.Generator:
    """Random numbers of their own for every purpose, so that other options leave those of one as they are."""
    return np.random.Generator(np.random.PCG64([seed, purpose]))


def normal(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Mean 0, variance 1: sums of twelve uniform numbers less six, which are nearly normal and need no logarithm."""
    total = np.zeros(shape)
    for _ in range(12):
        total += draw.random(shape)
    return total - 6


def orthonormal(draw: np.random.Generator, n: int, r: int) -> np.ndarray:
    """(n, r) with orthonormal columns in random directions, by Gram and Schmidt, each step taken twice."""
    found = np.zeros((n, r))
    for i in range(r):
        column = normal(draw, n)
        for _ in range(2):  # once leaves a rest where a column nearly lies in the span of those before
            for before in found[:, :i].T:
                column = column - math.fsum(column * before) * before
        found[:, i] = column / math.sqrt(math.fsum(column * column))
    return found


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(p, q), (q, s) → (p, s)."""
    total = np.zeros((len(left), right.shape[1]))
    for column, row in zip(left.T, right, strict=True):
        total += np.outer(column, row)
    return total


def of_spectrum(draw: np.random.Generator, m: int, n: int, values: Sequence[float], *, diagonal: bool) -> np.ndarray:
    """(m, n) with these singular values (at most min(m, n), the others are 0), float64.

    Args:
        draw: of the singular vectors.
        m: rows.
        n: columns.
        values: in falling order.
        diagonal: the singular vectors are unit vectors; else they point in random directions.
    """
    r = len(values)
    if diagonal:
        matrix = np.zeros((m, n))
        matrix[range(r), range(r)] = values
        return matrix
    left, right = orthonormal(draw, m, r), orthonormal(draw, n, r)
    return product(left * np.array(values), right.T)


def block(n: int) -> int:
    """Least power of two from n on: `whitened` inputs come in multiples of it."""
    return 1 << (n - 1).bit_length()


def whitened(draw: np.random.Generator, samples: int, n: int) -> np.ndarray:
    """Inputs (N, n) of ±1 with XᵀX = N·I, in any arithmetic: columns of Hadamard matrices under random signs.

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
        signs = 2 * draw.integers(0, 2, size=(len(hadamard), 1)) - 1  # of an example; XᵀX does not see them
        parts.append(hadamard[:, columns] * signs)
    return np.concatenate(parts)


def observed(draw: np.random.Generator, m: int, n: int, fraction: float) -> np.ndarray:
    """(m, n) of bool: that share of all entries, at least one and not all, without replacement."""
    count = min(max(round(fraction * m * n), 1), m * n - 1)
    mask = np.zeros(m * n, dtype=bool)
    mask[draw.permutation(m * n)[:count]] = True
    return mask.reshape(m, n)
