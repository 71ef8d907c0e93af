"""Singular values over training, as a run records them and as they are on disk.

There is one `spectra.npz` per run, always complete, readable without pickle.

`index` holds JSON as bytes, because a layer's name may not be a valid file name: {version, spectra: [{of, layer, shape,
how}]}. Of entry i, `steps_i` (S,) int64 are optimiser steps, `values_i` (S, k) float64 the singular values after each,
and `rows_i` (S,) int64, of activations only, the numbers of rows that they were taken from.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bench.core.errors import EnvironmentProblem
from bench.core.files import write_atomic
from bench.records.fields import Quantity
from bench.records.files import checked
from bench.records.results import LayerSpectrum, RankSeries, Spectra
from bench.records.schema import Record
from bench.spectra.ranks import effective_rank, summary

FILE = "spectra.npz"
VERSION = 1
Way = Literal["factors", "gram", "svd", "covariance"]
"""How singular values were computed: from the QR of thin factors and float64 SVD of their core; as square roots of
eigenvalues of the float64 Gram matrix (floor 1e-8·σ₁); by float64 SVD; from the second moment of activations, with the
floor of a Gram matrix."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpectrumHistory:
    """Singular values of one layer over training.

    Attributes:
        of: one of `bench.config.sections.QUANTITIES`.
        shape: (m, n) of the matrix; of activations (D, D), that of their second moment.
        how: one of `Way`.
        steps: (S,), optimiser steps, ascending. A gradient or step belongs to the weights it starts from.
        values: (S, k), descending; values left out up to min(m, n) are 0. A row of NaN: the matrix was not finite.
        rows: (S,), of activations alone: the number N of feature vectors; values are those of their matrix (N, D),
            divided by √N.
    """

    of: str
    layer: str
    shape: tuple[int, int]
    how: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    rows: NDArray[np.int64] | None = None

    def effective_ranks(self) -> list[float]:
        """Return the effective rank at every step; NaN where the matrix was not finite."""
        finite = np.isfinite(self.values).all(-1)
        ranks = effective_rank(np.nan_to_num(self.values), singular_values=True).numpy()
        return np.where(finite, ranks, np.nan).tolist()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSpectra:
    """All histories of a run, in the order in which they were first recorded."""

    spectra: tuple[SpectrumHistory, ...]

    def layers(self, of: str) -> dict[str, SpectrumHistory]:
        """Return the histories of one quantity by layer."""
        return {history.layer: history for history in self.spectra if history.of == of}


class _Entry(msgspec.Struct, frozen=True):
    of: str
    layer: str
    shape: tuple[int, int]
    how: Way


class _Index(msgspec.Struct, frozen=True):
    version: int
    spectra: list[_Entry]


def write(path: Path, spectra: Iterable[SpectrumHistory]) -> None:
    """Write the file as `write_atomic` does. One process writes it, so temporary files that a killed one left go.

    Raises:
        OSError: the disk is full, or the like; the old file stays.
    """
    entries: list[_Entry] = []
    arrays: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {}
    for i, history in enumerate(spectra):
        entries.append(msgspec.convert(history, _Entry, from_attributes=True))
        arrays |= {f"steps_{i}": history.steps, f"values_{i}": history.values}
        if history.rows is not None:
            arrays[f"rows_{i}"] = history.rows
    buffer = io.BytesIO()
    index = msgspec.json.encode(_Index(version=VERSION, spectra=entries))
    np.savez_compressed(buffer, allow_pickle=False, index=np.frombuffer(index, dtype=np.uint8), **arrays)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    write_atomic(path, buffer.getvalue(), sync=True)


def read(path: Path) -> StoredSpectra:
    """Read a file that `write` wrote.

    Raises:
        EnvironmentProblem: the file cannot be read, or does not have this format; the error names it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            index = msgspec.json.decode(bytes(arrays["index"]), type=_Index)
            if index.version != VERSION:
                raise ValueError(f"version {index.version}; this version of lowrank-bench reads {VERSION}")
            return StoredSpectra(spectra=tuple(_history(arrays, i, entry) for i, entry in enumerate(index.spectra)))
    except _BROKEN as error:
        known = f"{type(error).__name__}: {error}"[:200]
        todo = "Train the run again, or put the file back from a copy."
        raise EnvironmentProblem(f"{path}: cannot be read as spectra of a run", known, todo) from error


def read_run(run: Record, folder: Path) -> StoredSpectra | None:
    """Read what a run stored in its folder, after it was held against the record; None if there is nothing.

    Raises:
        EnvironmentProblem: the file is not as the run wrote it, or cannot be read.
    """
    path = checked(run, folder, FILE)
    return read(path) if path.is_file() else None


_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)
_BROKEN += (MemoryError, RuntimeError)  # of zipfile and numpy on forged headers


def _history(arrays: np.lib.npyio.NpzFile, i: int, entry: _Entry) -> SpectrumHistory:
    """Make the history of entry `i`, and check that its arrays fit together."""
    steps, values, rows = arrays[f"steps_{i}"], arrays[f"values_{i}"], arrays.get(f"rows_{i}")
    fits = (
        steps.dtype == np.int64 and steps.ndim == 1 and bool(np.all(np.diff(steps) > 0)),
        values.dtype == np.float64 and values.ndim == 2,
        values.shape[:1] == steps.shape and values.shape[-1] <= min(entry.shape),
        rows is None or (rows.dtype == np.int64 and rows.shape == steps.shape),
    )
    if not all(fits):
        raise ValueError(f"the arrays of entry {i} do not fit together")
    return SpectrumHistory(**msgspec.structs.asdict(entry), steps=steps, values=values, rows=rows)


@dataclass(kw_only=True)
class LayerLog:
    """A `SpectrumHistory` that grows, with lists for arrays. Its `vars` go into a checkpoint.

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
            layers.append(LayerSpectrum(of=log.of, layer=log.layer, step=step, **summary(sigma)))
    series = tuple(_mean_ranks(of, group) for of, group in by_quantity.items())
    return Spectra(layers=tuple(layers), series=series)


def _mean_ranks(of: Quantity, logs: Sequence[LayerLog]) -> RankSeries:
    ranks: dict[int, list[float]] = {step: [] for step in sorted({step for log in logs for step in log.steps})}
    for log in logs:
        for step, sigma in log.finite():
            ranks[step].append(float(effective_rank(sigma, singular_values=True)))
    means = tuple(math.fsum(values) / len(values) if values else None for values in ranks.values())
    return RankSeries(of=of, layers=len(logs), steps=tuple(ranks), effective=means)
