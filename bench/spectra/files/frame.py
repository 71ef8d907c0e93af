"""Rank metrics of runs, by layer and step, as rows of a table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.core.errors import EnvironmentProblem
from bench.records.schema import Record
from bench.spectra.files.history import SpectrumHistory, read_run
from bench.spectra.ranks import effective_rank, energy_rank, stable_rank


class Row(NamedTuple):
    """Metrics of one layer of a run after an optimiser step; NaN where the matrix was not finite.

    Attributes:
        of: what was looked at, as in `spectra.of`; `updates` is ΔW.
        m, n: shape of the matrix; None where only the record tells of it.
        nominal_rank: of ΔW, the rank that the method allows, after the last step.
        energy90_rank: singular values that carry 90 % of Σσ².
        how: as in `ranks[].how` of a record; None where only the record tells of it.
    """

    run_id: str
    method: str
    task: str
    backbone: str
    seed: int
    of: str
    layer: str
    step: int
    m: int | None
    n: int | None
    nominal_rank: int | None
    stable_rank: float
    effective_rank: float
    energy90_rank: float
    spectral_norm: float
    how: str | None


def rows(record: Record, folder: Path) -> Iterator[Row]:
    """Yield the rows of a run in a folder: every step of what it tracked, and each other ΔW after the last step.

    Without its spectra.npz, as beside records that were copied alone, or with a broken one, which is warned of, the
    record tells of the last step alone.
    """
    try:
        stored = read_run(record, folder)
    except EnvironmentProblem as problem:
        warnings.warn(problem.line(), stacklevel=2)
        stored = None
    spec = record.spec
    of_run = (record.run_id, spec.method, spec.task, record.backbone.name, spec.seed)
    ranks = {rank.layer: rank for rank in record.ranks}
    tracked: set[str] = set()
    for history in stored.spectra if stored else ():
        of, layer = history.of, history.layer
        nominal = ranks[layer].nominal if of == "updates" and layer in ranks else None
        tracked |= {layer} if of == "updates" else set()
        for step, metrics in zip(history.steps.tolist(), _by_step(history), strict=True):
            yield Row(*of_run, of, layer, step, *history.shape, nominal, *metrics, history.how)
    for last in record.spectra.layers if record.spectra and not stored else ():
        if last.of != "updates" or last.layer not in ranks:
            metrics = (last.stable, last.effective, last.energy90, last.norm)
            yield Row(*of_run, last.of, last.layer, last.step, None, None, None, *metrics, None)
    for layer, rank in ranks.items():
        if layer not in tracked:
            metrics = (rank.stable, rank.effective, rank.energy90, rank.norm)
            steps = record.cost.steps if record.cost else 0
            yield Row(*of_run, "updates", layer, steps, *rank.shape, rank.nominal, *metrics, rank.how)


def _by_step(history: SpectrumHistory) -> Iterator[tuple[float, float, float, float]]:
    """Yield stable rank, effective rank, 90 % energy rank and σ₁ after each step."""
    finite = np.isfinite(history.values).all(-1)
    sigma = np.nan_to_num(history.values)
    metrics = [metric(sigma, singular_values=True).numpy() for metric in (stable_rank, effective_rank, energy_rank)]
    columns = [np.where(finite, column, np.nan).tolist() for column in (*metrics, sigma.max(-1, initial=0.0))]
    yield from zip(*columns, strict=True)
