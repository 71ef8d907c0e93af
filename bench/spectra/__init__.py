"""Rank as a number: spectra of matrices and what they say about rank."""

from bench.spectra.angles import principal_angles
from bench.spectra.collapse import collapse
from bench.spectra.delta import Delta
from bench.spectra.powerlaw import power_law_alpha, power_law_fit
from bench.spectra.ranks import (
    effective_rank,
    energy_rank,
    nuclear_to_frobenius,
    nuclear_to_spectral,
    numerical_rank,
    participation_ratio,
    rankme,
    stable_rank,
)
from bench.spectra.singular import Spectrum, matricize, singular_values, spectrum

__all__ = [
    "Delta",
    "Spectrum",
    "collapse",
    "effective_rank",
    "energy_rank",
    "matricize",
    "nuclear_to_frobenius",
    "nuclear_to_spectral",
    "numerical_rank",
    "participation_ratio",
    "power_law_alpha",
    "power_law_fit",
    "principal_angles",
    "rankme",
    "singular_values",
    "spectrum",
    "stable_rank",
]
