"""Spectra of layers that are not being trained: one row of numbers for each, or why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.spectra.delta import Delta
from bench.spectra.files.stored import FLOATS, Difference, Stored, streamed
from bench.spectra.powerlaw import power_law_alpha
from bench.spectra.ranks import effective_rank, energy_rank, participation_ratio, stable_rank
from bench.spectra.singular import finite

CHANGE_FLOOR = 1e-12
"""Eigenvalues of a change up to this share of its largest are no part of its power law."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of one layer.

    Attributes:
        layer: its name.
        shape: (m, n).
        nominal: the rank that shape and parametrisation allow.
        how: `gram`, `svd` or `factors`, as the spectra of runs say it.
        numbers: metrics by name: stable, effective, energy90, participation, norm; with all of them also numerical and
            alpha. Empty where there is an error.
        embedding: rows are looked up.
        error: why there is no spectrum, or an empty string.
    """

    layer: str
    shape: tuple[int, int]
    nominal: int
    how: str
    numbers: dict[str, float | int] = field(default_factory=dict[str, float | int])
    embedding: bool = False
    error: str = ""


def matrices(found: Iterable[tuple[str, Stored | Difference]], *, every: bool = False) -> Iterator[Row]:
    """A row for each matrix, which is read when its turn comes.

    Args:
        found: name and place.
        every: also what the smallest singular values decide; it takes the accuracy of an SVD, and long.
    """
    for name, one in found:
        change = isinstance(one, Difference)
        marked = one.tuned.embedding if change else one.embedding
        row = Row(layer=name, shape=one.shape, nominal=min(one.shape), how="svd", embedding=marked)
        eps = torch.finfo(FLOATS[one.dtype]).eps if every else None
        yield _filled(row, lambda one=one: streamed(one, exact=every), eps, change=change)


def deltas(found: Iterable[tuple[str, Delta]], *, every: bool = False) -> Iterator[Row]:
    """A row for each ΔW that is given as factors."""
    for name, delta in found:
        row = Row(layer=name, shape=delta.shape, nominal=delta.nominal, how="factors")
        eps = torch.finfo(delta.factors[0].dtype).eps if every else None
        yield _filled(row, lambda delta=delta: (_of_factors(delta), "factors"), eps, change=True)


def numbers(sigma: Tensor) -> dict[str, float | int]:
    """The metrics of a spectrum (k,) that need nothing else."""
    return {
        "stable": float(stable_rank(sigma, singular_values=True)),
        "effective": float(effective_rank(sigma, singular_values=True)),
        "energy90": int(energy_rank(sigma, 0.9, singular_values=True)),
        "participation": float(participation_ratio(sigma, singular_values=True)),
        "norm": float(sigma.max()),
    }


def _filled(row: Row, spectrum: Callable[[], tuple[Tensor, str]], eps: float | None, *, change: bool) -> Row:
    """The row with its numbers, or with why it has none; `eps` is that of the stored precision, if all are wanted."""
    try:
        sigma, how = spectrum()
    except ValueError as error:  # not finite: this layer has no spectrum, the others have
        return replace(row, error=str(error))
    found = numbers(sigma)
    if eps is not None:
        found["numerical"] = int((sigma > sigma.max() * max(row.shape) * eps).sum())
        # what training changed is small as a whole, so its smallest are told from its own largest
        floor = {"floor": float(CHANGE_FLOOR * sigma.max().square())} if change else {}
        if alpha := float(power_law_alpha(sigma, singular_values=True, **floor)):  # 0: there is no fit
            found["alpha"] = alpha
    return replace(row, how=how, numbers=found)


def _of_factors(delta: Delta) -> Tensor:
    for factor in delta.factors:
        finite(factor)
    return delta.singular_values()
