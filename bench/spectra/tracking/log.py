"""Spectra of a layer during training: in memory, in a checkpoint, as arrays for the file, summarised for the record."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bench.records.schema import LayerSpectrum, Quantity, RankSeries, Spectra
from bench.spectra.files.history import SpectrumHistory
from bench.spectra.ranks import effective_rank, summary


@dataclass(kw_only=True)
class LayerLog:
    """Spectra of one quantity and layer by step. Its `vars` go into a checkpoint.

    Attributes:
        values: (k,) float64 for each step, where k may change; None where the matrix was not finite.
        rows: of activations, the number of feature vectors for each step.
    """

    of: Quantity
    layer: str
    shape: tuple[int, int]
    how: str
    steps: list[int] = field(default_factory=list[int])
    values: list[Tensor | None] = field(default_factory=list["Tensor | None"])
    rows: list[int] = field(default_factory=list[int])

    def add(self, step: int, values: Tensor | None, rows: int | None = None) -> None:
        """Add a spectrum (k,), or None where the matrix was not finite. A step that is already there is ignored."""
        if self.steps and step <= self.steps[-1]:
            return
        self.steps.append(step)
        self.values.append(None if values is None else values.detach().double().cpu())
        if rows is not None:
            self.rows.append(rows)

    def finite(self) -> list[tuple[int, Tensor]]:
        """Return steps and spectra without the steps at which the matrix was not finite."""
        return [(step, sigma) for step, sigma in zip(self.steps, self.values, strict=True) if sigma is not None]

    def first_not_finite(self) -> int | None:
        """Return the first step at which the matrix was not finite, if there is one."""
        return next((step for step, sigma in zip(self.steps, self.values, strict=True) if sigma is None), None)

    def history(self) -> SpectrumHistory:
        """Return the arrays for the file: zeros after the last singular value, a row of NaN without a spectrum."""
        width = max((len(sigma) for _, sigma in self.finite()), default=1)
        blank = torch.full((width,), math.nan, dtype=torch.float64)
        table = pad_sequence([blank if sigma is None else sigma for sigma in self.values], batch_first=True)
        return SpectrumHistory(
            of=self.of,
            layer=self.layer,
            shape=self.shape,
            how=self.how,
            steps=np.array(self.steps, dtype=np.int64),
            values=table.numpy(),
            rows=np.array(self.rows, dtype=np.int64) if self.rows else None,
        )


def summarise(logs: Iterable[LayerLog]) -> Spectra:
    """Summarise for the record: the last spectrum of every layer, and the mean effective rank at every step."""
    by_quantity: defaultdict[Quantity, list[LayerLog]] = defaultdict(list)
    for log in logs:
        by_quantity[log.of].append(log)
    layers: list[LayerSpectrum] = []
    for log in (log for group in by_quantity.values() for log in group):
        for step, sigma in log.finite()[-1:]:
            layers.append(LayerSpectrum(of=log.of, layer=log.layer, step=step, **summary(sigma)._asdict()))
    series = tuple(_mean_ranks(of, group) for of, group in by_quantity.items())
    return Spectra(layers=tuple(layers), series=series)


def _mean_ranks(of: Quantity, logs: Sequence[LayerLog]) -> RankSeries:
    ranks: dict[int, list[float]] = {step: [] for step in sorted({step for log in logs for step in log.steps})}
    for log in logs:
        for step, sigma in log.finite():
            ranks[step].append(float(effective_rank(sigma, singular_values=True)))
    means = tuple(math.fsum(values) / len(values) if values else None for values in ranks.values())
    return RankSeries(of=of, layers=len(logs), steps=tuple(ranks), effective=means)
