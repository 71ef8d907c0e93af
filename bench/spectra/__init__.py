"""Rank as a number: spectra of matrices and what they say about the rank really used."""

from bench.spectra.delta import Delta
from bench.spectra.ranks import effective_rank, energy_rank, singular_values, stable_rank

__all__ = ["Delta", "effective_rank", "energy_rank", "singular_values", "stable_rank"]
