"""Spectra of layers that are not being trained: one row of numbers for each, or why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bench.spectra.delta import Delta
from bench.spectra.ranks import (
    effective_rank,
    energy_rank,
    numerical_rank,
    participation_ratio,
    stable_rank,
)
from bench.spectra.stored import Difference, Stored, finite, gram_spectrum


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
        every: also what needs the whole matrix and a float64 SVD.
    """
    for name, one in found:
        exact = one.dtype == "F64"
        marked = one.embedding if isinstance(one, Stored) else one.tuned.embedding
        how = "svd" if exact else "gram"
        row = Row(layer=name, shape=one.shape, nominal=min(one.shape), how=how, embedding=marked)
        yield _filled(row, lambda one=one, exact=exact: _spectrum(one, exact), one.read if every else None)


def deltas(found: Iterable[tuple[str, Delta]], *, every: bool = False) -> Iterator[Row]:
    """A row for each ΔW that is given as factors."""
    for name, delta in found:
        row = Row(layer=name, shape=delta.shape, nominal=delta.nominal, how="factors")
        yield _filled(row, lambda delta=delta: _of_factors(delta), delta.dense if every else None)


def numbers(sigma: Tensor) -> dict[str, float | int]:
    """The metrics of a spectrum (k,) that need nothing else."""
    return {
        "stable": float(stable_rank(sigma, singular_values=True)),
        "effective": float(effective_rank(sigma, singular_values=True)),
        "energy90": int(energy_rank(sigma, 0.9, singular_values=True)),
        "participation": float(participation_ratio(sigma, singular_values=True)),
        "norm": float(sigma.max()),
    }


def _filled(row: Row, spectrum: Callable[[], Tensor], whole: Callable[[], Tensor] | None) -> Row:
    try:
        sigma = spectrum()
    except ValueError as error:  # not finite: this layer has no spectrum, the others have
        return replace(row, error=str(error))
    found = numbers(sigma)
    if whole is not None:
        found["numerical"] = int(numerical_rank(whole()))
        found |= _tail(sigma)
    return replace(row, numbers=found)


def _spectrum(one: Stored | Difference, exact: bool) -> Tensor:
    if not exact:
        return gram_spectrum(one.blocks(), one.shape)
    matrix = one.read()
    finite(matrix)
    return torch.linalg.svdvals(matrix)


def _of_factors(delta: Delta) -> Tensor:
    for factor in delta.factors:
        finite(factor)
    return delta.singular_values()


def _tail(sigma: Tensor) -> dict[str, float | int]:
    """The power law's exponent, where this version has it and the spectrum is long enough for one."""
    import bench.spectra as spectra

    law: Callable[..., Any] | None = getattr(spectra, "power_law_alpha", None)
    return {} if law is None else {"alpha": float(law(sigma, singular_values=True))}
