"""Matrices of known singular values and inputs that are whitened exactly, the same bits on every machine.

LAPACK and BLAS are not used: their last bits depend on the machine. Random numbers come from the bits of PCG64 by
additions alone, scalar products are rounded once (`math.fsum`), and products of matrices are sums of outer products in
a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.records.data import Arrays

MATRIX, OBSERVED, INPUTS, DEV, NOISE = range(5)  # purposes of random numbers, each with a stream of its own


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
    columns = np.zeros((n, r))
    for i in range(r):
        column = normal(draw, n)
        for _ in range(2):  # one step is inexact where a column nearly lies in the span of those before
            for before in columns[:, :i].T:
                column = column - math.fsum(column * before) * before
        columns[:, i] = column / math.sqrt(math.fsum(column * column))
    return columns


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply (p, q) by (q, s)."""
    total = np.zeros((len(left), right.shape[1]))
    for column, row in zip(left.T, right, strict=True):
        total += np.outer(column, row)
    return total


def of_spectrum(seed: int, m: int, n: int, values: Sequence[float], *, diagonal: bool) -> np.ndarray:
    """Draw (m, n) with these singular values in decreasing order (at most min(m, n), the others are 0), float64.

    The singular vectors are unit vectors if `diagonal`, else they point in random directions.
    """
    r = len(values)
    if diagonal:
        left, right = np.eye(m, r), np.eye(n, r)
    else:
        draw = stream(seed, MATRIX)
        left, right = orthonormal(draw, m, r), orthonormal(draw, n, r)
    return product(left * np.array(values), right.T)


def whitened(draw: np.random.Generator, blocks: int, n: int) -> np.ndarray:
    """Draw inputs (N, n) of ±1 with XᵀX = N·I, in any arithmetic: columns of Hadamard matrices under random signs.

    N is a multiple of the smallest power of two ≥ n; `blocks` is the factor.
    """
    hadamard = np.ones((1, 1))
    while len(hadamard) < n:  # Sylvester's: [[H, H], [H, −H]]
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    parts: list[np.ndarray] = []
    for _ in range(blocks):
        columns = draw.permutation(len(hadamard))[:n]
        signs = 2 * draw.integers(0, 2, size=(len(hadamard), 1)) - 1  # one an example; XᵀX does not depend on them
        parts.append(hadamard[:, columns] * signs)
    return np.concatenate(parts)


def observed(seed: int, m: int, n: int, fraction: float) -> np.ndarray:
    """Draw which entries of (m, n) are observed, bool: that share of them, at least one and not all."""
    count = min(max(round(fraction * m * n), 1), m * n - 1)
    mask = np.zeros(m * n, dtype=bool)
    mask[stream(seed, OBSERVED).permutation(m * n)[:count]] = True
    return mask.reshape(m, n)


def undetermined(mask: np.ndarray, rank: int) -> list[str]:
    """Say why the observed entries cannot determine the others, where counting shows it."""
    m, n = mask.shape
    freedom, count = rank * (m + n - rank), int(mask.sum())
    if count < freedom:
        return [f"{count} entries are observed, and a matrix of rank {rank} has {freedom} free numbers"]
    short = int((mask.sum(0) < rank).sum() + (mask.sum(1) < rank).sum())
    return [f"{short} rows and columns have fewer than {rank} observed entries"] if short else []


def regression(matrix: np.ndarray, blocks: int, *, noise: float, seed: int) -> tuple[Arrays, Arrays]:
    """Draw whitened inputs x and make targets Φ·x, of train with noise; dev has one block of other inputs."""
    n = matrix.shape[1]
    inputs = whitened(stream(seed, INPUTS), blocks, n)
    fresh = whitened(stream(seed, DEV), 1, n)
    targets = _with_noise(product(inputs, matrix.T), noise, seed)
    return _arrays(inputs, targets), _arrays(fresh, product(fresh, matrix.T))


def columns(
    matrix: np.ndarray, mask: np.ndarray | None, *, repeats: int, noise: float, seed: int
) -> tuple[Arrays, Arrays]:
    """Make unit vectors and the matrix's columns; entries under the mask are in train, the others in dev.

    Without a mask, all entries are in both.
    """
    known = matrix if mask is None else np.where(mask, matrix, np.nan)
    hidden = matrix if mask is None else np.where(mask, np.nan, matrix)
    units = np.eye(matrix.shape[1])
    targets = _with_noise(known.T, noise, seed)
    train = _arrays(np.tile(units, (repeats, 1)), np.tile(targets, (repeats, 1)))
    return train, _arrays(units, hidden.T)


def _with_noise(targets: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Add noise to every number; NaN stays NaN."""
    return targets + noise * normal(stream(seed, NOISE), *targets.shape) if noise else targets


def _arrays(inputs: np.ndarray, targets: np.ndarray) -> Arrays:
    return Arrays(inputs.astype("float32"), targets.astype("float32"))
