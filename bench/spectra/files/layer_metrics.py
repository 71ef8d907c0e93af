"""Rank metrics of layers that are not in training: one `LayerMetrics` for each, or why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.spectra.delta import Delta
from bench.spectra.files.weights import FLOATS, StoredMatrix, streamed_spectrum
from bench.spectra.powerlaw import EIGENVALUE_FLOOR, power_law_alpha
from bench.spectra.ranks import numerical_rank, participation_ratio, summary
from bench.spectra.singular import Spectrum

CHANGE_FLOOR = 1e-12
"""Eigenvalues of a change up to this share of its largest do not count for its power law."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMetrics:
    """Metrics of one layer (m, n), or the error for which it has none.

    Attributes:
        nominal: the rank that shape and parametrisation allow.
        how: `gram`, `svd` or `factors`, as for the spectra of runs.
        numbers: metrics by name: stable, effective, energy90, participation, norm; with all of them also numerical and
            alpha.
        embedding: its rows are looked up.
        values: (k,), singular values, descending; none where they are not at hand, as for what a record tells.
    """

    layer: str
    shape: tuple[int, int]
    nominal: int
    how: str
    numbers: dict[str, float | int] = field(default_factory=dict[str, float | int])
    embedding: bool = False
    error: str = ""
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), compare=False, repr=False)


def measure_matrices(matrices: Iterable[StoredMatrix], *, every: bool = False) -> Iterator[LayerMetrics]:
    """Measure matrices one after the other; each is read only then.

    `every` adds the metrics that depend on the smallest singular values, which need an SVD's accuracy and more time.
    """
    for matrix in matrices:
        shape = matrix.shape
        row = LayerMetrics(layer=matrix.name, shape=shape, nominal=min(shape), how="svd", embedding=matrix.embedding)
        eps = torch.finfo(FLOATS[matrix.dtype]).eps if every else None
        yield _measured(row, partial(streamed_spectrum, matrix, exact=every), eps, change=matrix.base is not None)


def measure_deltas(deltas: Iterable[tuple[str, Delta]], *, every: bool = False) -> Iterator[LayerMetrics]:
    """Measure every ΔW that is given as factors."""
    for name, delta in deltas:
        row = LayerMetrics(layer=name, shape=delta.shape, nominal=delta.nominal, how="factors")
        eps = torch.finfo(torch.float32).eps if every else None  # factors are in float64, but were trained in float32
        yield _measured(row, delta.spectrum, eps, change=True)


def metrics(sigma: Tensor) -> dict[str, float | int]:
    """Compute the metrics of a spectrum (k,) that need nothing else."""
    return {**summary(sigma), "participation": float(participation_ratio(sigma, singular_values=True))}


def _measured(row: LayerMetrics, spectrum: Callable[[], Spectrum], eps: float | None, *, change: bool) -> LayerMetrics:
    """Add the numbers, or why there are none; `eps` is that of the stored precision, if all metrics are wanted."""
    try:
        sigma, how = spectrum()
    except ValueError as error:  # not finite: this layer has no spectrum, the others have
        return replace(row, error=str(error))
    numbers = metrics(sigma)
    if eps is not None:
        tolerance = max(row.shape) * eps
        numbers["numerical"] = int(numerical_rank(sigma, singular_values=True, tolerance=tolerance))
        # a change is small as a whole, so the floor of its eigenvalues is relative to its largest
        floor = CHANGE_FLOOR * numbers["norm"] ** 2 if change else EIGENVALUE_FLOOR
        if alpha := float(power_law_alpha(sigma, singular_values=True, floor=floor)):  # 0: there is no fit
            numbers["alpha"] = alpha
    return replace(row, how=how, numbers=numbers, values=sigma.numpy())
