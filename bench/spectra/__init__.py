"""Rank as a number: spectra of matrices and what they say about the rank really used."""

from bench.spectra.angles import principal_angles
from bench.spectra.collapse import collapse
from bench.spectra.delta import Delta
from bench.spectra.ranks import (
    effective_rank,
    energy_rank,
    nuclear_to_frobenius,
    nuclear_to_spectral,
    numerical_rank,
    participation_ratio,
    rankme,
    singular_values,
    stable_rank,
)

__all__ = [
    "Delta",
    "collapse",
    "effective_rank",
    "energy_rank",
    "nuclear_to_frobenius",
    "nuclear_to_spectral",
    "numerical_rank",
    "participation_ratio",
    "principal_angles",
    "rankme",
    "singular_values",
    "stable_rank",
]
