"""Spectra recorded during training: in memory, in a checkpoint, as arrays for the file, summarised for the record."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.records.schema import LayerSpectrum, Quantity, RankSeries, Spectra
from bench.spectra.files.history import SpectrumHistory
from bench.spectra.ranks import effective_rank, energy_rank, stable_rank


@dataclass(slots=True, kw_only=True)
class _Rows:
    """Spectra of one quantity and layer; `values` are (k,) float64, k may change; None where there was no spectrum."""

    of: Quantity
    layer: str
    shape: tuple[int, int]
    how: str
    steps: list[int] = field(default_factory=list[int])
    values: list[Tensor | None] = field(default_factory=list["Tensor | None"])
    rows: list[int] = field(default_factory=list[int])

    def table(self) -> NDArray[np.float64]:
        """Return (S, k): zeros after the last singular value, NaN in a row without a spectrum."""
        width = max((len(v) for v in self.values if v is not None), default=1)
        found = np.zeros((len(self.steps), width))
        for i, value in enumerate(self.values):
            found[i, : len(value) if value is not None else None] = np.nan if value is None else value.numpy()
        return found


class SpectrumLog:
    """Spectra by quantity and layer, in the order of their steps."""

    def __init__(self) -> None:
        self._series: dict[tuple[Quantity, str], _Rows] = {}

    def __bool__(self) -> bool:
        """Whether there is any spectrum."""
        return bool(self._series)

    def add(
        self,
        of: str,
        layer: str,
        step: int,
        values: Tensor | None,
        *,
        shape: tuple[int, int],
        how: str,
        rows: int | None = None,
    ) -> None:
        """Add a spectrum (k,), or None where the matrix was not finite. A step that is already there is ignored."""
        of = cast(Quantity, of)  # one of `QUANTITIES`, as `SpectraConfig` checks
        series = self._series.setdefault((of, layer), _Rows(of=of, layer=layer, shape=shape, how=how))
        if series.steps and step <= series.steps[-1]:
            return
        series.steps.append(step)
        series.values.append(None if values is None else values.detach().double().cpu())
        series.rows += [] if rows is None else [rows]

    def state(self) -> list[dict[str, Any]]:
        """Return numbers, texts, lists and tensors for a checkpoint."""
        return [{name: getattr(series, name) for name in _FIELDS} for series in self._series.values()]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Restore what `state` gave; later spectra are dropped."""
        self._series = {}
        for one in state:
            m, n = one["shape"]
            lists = {name: [*one[name]] for name in ("steps", "values", "rows")}
            series = _Rows(of=one["of"], layer=one["layer"], how=one["how"], shape=(m, n), **lists)
            self._series[series.of, series.layer] = series

    def spectra(self) -> Iterator[SpectrumHistory]:
        """Yield the spectra as arrays."""
        for series in self._series.values():
            yield SpectrumHistory(
                of=series.of,
                layer=series.layer,
                shape=series.shape,
                how=series.how,
                steps=np.array(series.steps, dtype=np.int64),
                values=series.table(),
                rows=np.array(series.rows, dtype=np.int64) if series.rows else None,
            )

    def summary(self) -> Spectra:
        """Summarise for the record: the last spectrum of every layer, and the mean effective rank at every step."""
        layers: list[LayerSpectrum] = []
        series: list[RankSeries] = []
        quantities: dict[Quantity, None] = dict.fromkeys(rows.of for rows in self._series.values())
        for of in quantities:
            mine = [rows for rows in self._series.values() if rows.of == of]
            layers += [last for rows in mine if (last := _last(rows))]
            ranks: dict[int, list[float]] = {step: [] for step in sorted({s for rows in mine for s in rows.steps})}
            for rows in mine:
                for step, value in zip(rows.steps, rows.values, strict=True):
                    ranks[step] += [] if value is None else [float(effective_rank(value, singular_values=True))]
            means = [math.fsum(found) / len(found) if found else None for found in ranks.values()]
            series.append(RankSeries(of=of, layers=len(mine), steps=(*ranks,), effective=tuple(means)))
        return Spectra(layers=tuple(layers), series=tuple(series))


_FIELDS = ("of", "layer", "shape", "how", "steps", "values", "rows")


def _last(rows: _Rows) -> LayerSpectrum | None:
    there = [(step, value) for step, value in zip(rows.steps, rows.values, strict=True) if value is not None]
    if not there:
        return None
    step, sigma = there[-1]
    return LayerSpectrum(
        of=rows.of,
        layer=rows.layer,
        step=step,
        stable=float(stable_rank(sigma, singular_values=True)),
        effective=float(effective_rank(sigma, singular_values=True)),
        energy90=int(energy_rank(sigma, 0.9, singular_values=True)),
        norm=float(torch.linalg.vector_norm(sigma, float("inf"))),
    )
