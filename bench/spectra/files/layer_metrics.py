"""Rank metrics of layers that are not in training: one `LayerMetrics` for each, or why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.spectra.delta import Delta
from bench.spectra.files.weights import FLOATS, Difference, StoredMatrix, streamed_spectrum
from bench.spectra.powerlaw import power_law_alpha
from bench.spectra.ranks import effective_rank, energy_rank, participation_ratio, stable_rank
from bench.spectra.singular import finite

CHANGE_FLOOR = 1e-12
"""Eigenvalues of a change up to this share of its largest do not count for its power law."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMetrics:
    """Metrics of one layer.

    Attributes:
        layer: its name.
        shape: (m, n).
        nominal: the rank that shape and parametrisation allow.
        how: `gram`, `svd` or `factors`, as for the spectra of runs.
        numbers: metrics by name: stable, effective, energy90, participation, norm; with all of them also numerical and
            alpha. Empty where there is an error.
        embedding: its rows are looked up.
        error: why there is no spectrum, or an empty string.
    """

    layer: str
    shape: tuple[int, int]
    nominal: int
    how: str
    numbers: dict[str, float | int] = field(default_factory=dict[str, float | int])
    embedding: bool = False
    error: str = ""


def measure_matrices(
    found: Iterable[tuple[str, StoredMatrix | Difference]], *, every: bool = False
) -> Iterator[LayerMetrics]:
    """Measure matrices one after the other; each is read only then.

    Args:
        found: name and matrix.
        every: also the metrics that depend on the smallest singular values. They need the accuracy of an SVD and more
            time.
    """
    for name, matrix in found:
        change = isinstance(matrix, Difference)
        embedding = matrix.tuned.embedding if change else matrix.embedding
        layer = LayerMetrics(layer=name, shape=matrix.shape, nominal=min(matrix.shape), how="svd", embedding=embedding)
        eps = torch.finfo(FLOATS[matrix.dtype]).eps if every else None
        yield _measured(layer, lambda matrix=matrix: streamed_spectrum(matrix, exact=every), eps, change=change)


def measure_deltas(found: Iterable[tuple[str, Delta]], *, every: bool = False) -> Iterator[LayerMetrics]:
    """Measure every ΔW that is given as factors."""
    for name, delta in found:
        layer = LayerMetrics(layer=name, shape=delta.shape, nominal=delta.nominal, how="factors")
        eps = torch.finfo(delta.factors[0].dtype).eps if every else None
        yield _measured(layer, lambda delta=delta: (_factor_spectrum(delta), "factors"), eps, change=True)


def metrics(sigma: Tensor) -> dict[str, float | int]:
    """Compute the metrics of a spectrum (k,) that need nothing else."""
    return {
        "stable": float(stable_rank(sigma, singular_values=True)),
        "effective": float(effective_rank(sigma, singular_values=True)),
        "energy90": int(energy_rank(sigma, 0.9, singular_values=True)),
        "participation": float(participation_ratio(sigma, singular_values=True)),
        "norm": float(sigma.max()),
    }


def _measured(
    layer: LayerMetrics, spectrum: Callable[[], tuple[Tensor, str]], eps: float | None, *, change: bool
) -> LayerMetrics:
    """Add the numbers, or why there are none; `eps` is that of the stored precision, if all metrics are wanted."""
    try:
        sigma, how = spectrum()
    except ValueError as error:  # not finite: this layer has no spectrum, the others have
        return replace(layer, error=str(error))
    numbers = metrics(sigma)
    if eps is not None:
        numbers["numerical"] = int((sigma > sigma.max() * max(layer.shape) * eps).sum())
        # a change is small as a whole, so the floor of its eigenvalues is relative to its largest
        floor = {"floor": float(CHANGE_FLOOR * sigma.max().square())} if change else {}
        if alpha := float(power_law_alpha(sigma, singular_values=True, **floor)):  # 0: there is no fit
            numbers["alpha"] = alpha
    return replace(layer, how=how, numbers=numbers)


def _factor_spectrum(delta: Delta) -> Tensor:
    for factor in delta.factors:
        finite(factor)
    return delta.singular_values()
