"""Spectra over training on disk: one `spectra.npz` per run, whole at every moment, readable without pickle.

`index` holds JSON as bytes, since a layer's name may be no name of a file: {version, spectra: [{of, layer, shape,
how}]}. Of entry i, `steps_i` (S,) int64 are optimiser steps, `values_i` (S, k) float64 the singular values after each,
and `rows_i` (S,) int64, of activations only, the numbers of rows that they were taken from.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import EnvironmentProblem
from bench.core.files import write_atomic

FILE = "spectra.npz"
VERSION = 1
WAYS = ("factors", "gram", "svd", "covariance")
"""How singular values can have been computed: from the QR of thin factors and float64 SVD of their core; as square
roots of eigenvalues of the float64 Gram matrix (floor 1e-8·σ₁); by float64 SVD; from the second moment of activations,
with the floor of a Gram matrix."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spectrum:
    """Singular values of one layer over training.

    Attributes:
        of: the quantity, one of `bench.config.sections.QUANTITIES`.
        layer: its name.
        shape: (m, n) of the matrix; of activations (D, D), that of their second moment.
        how: one of `WAYS`.
        steps: (S,), optimiser steps, ascending. A gradient or step belongs to the weights it starts from.
        values: (S, k), descending; what is left out up to min(m, n) is 0. A row of NaN: the matrix was not finite.
        rows: (S,), of activations alone: how many feature vectors went in; values are those of the matrix of them
            (N, D), divided by √N.
    """

    of: str
    layer: str
    shape: tuple[int, int]
    how: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    rows: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectra:
    """All of a run, in the order in which they were first seen."""

    spectra: tuple[Spectrum, ...]

    @property
    def quantities(self) -> tuple[str, ...]:
        """What was looked at."""
        return tuple(dict.fromkeys(one.of for one in self.spectra))

    def layers(self, of: str) -> dict[str, Spectrum]:
        """Those of one quantity, by layer."""
        return {one.layer: one for one in self.spectra if one.of == of}


def write(path: Path, spectra: Iterable[Spectrum]) -> None:
    """Write the file at once: a reader, or a crash, sees the old one or the new one, never half.

    Raises:
        OSError: the disk is full, or the like; the old file stays.
    """
    arrays: dict[str, Any] = {}
    index: list[dict[str, Any]] = []
    for i, one in enumerate(spectra):
        index.append({"of": one.of, "layer": one.layer, "shape": [*one.shape], "how": one.how})
        arrays |= {f"steps_{i}": one.steps, f"values_{i}": one.values}
        if one.rows is not None:
            arrays[f"rows_{i}"] = one.rows
    text = json.dumps({"version": VERSION, "spectra": index})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, index=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
    write_atomic(path, buffer.getvalue(), sync=True)


def read(path: Path) -> Spectra:
    """What `write` wrote.

    Raises:
        EnvironmentProblem: the file cannot be read, or is not of this form; the error names it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            index: Any = json.loads(bytes(arrays["index"]).decode())
            if index["version"] != VERSION:
                raise ValueError(f"version {index['version']}; this version of lowrank-bench reads {VERSION}")
            return Spectra(spectra=tuple(_entry(arrays, i, one) for i, one in enumerate(index["spectra"])))
    except _BROKEN as error:
        known = f"{type(error).__name__}: {error}"[:200]
        raise EnvironmentProblem(
            f"{path}: cannot be read as spectra of a run",
            known,
            "Train the run again, or put the file back from a copy.",
        ) from error


_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)
_BROKEN += (NotImplementedError, RecursionError, MemoryError, RuntimeError)  # zipfile's and numpy's, of forged headers


def _entry(arrays: Mapping[str, Any], i: int, said: dict[str, Any]) -> Spectrum:
    """Entry `i`, checked.

    Raises:
        ValueError: its arrays do not fit together.
    """
    m, n = said["shape"]
    if not isinstance(said["of"], str) or not isinstance(said["layer"], str):
        raise ValueError(f"entry {i} has no name")
    rows = arrays.get(f"rows_{i}")
    found = Spectrum(
        of=said["of"],
        layer=said["layer"],
        shape=(int(m), int(n)),
        how=said["how"],
        steps=arrays[f"steps_{i}"],
        values=arrays[f"values_{i}"],
        rows=rows,
    )
    count = found.steps.shape
    forms = [found.steps.dtype == np.int64, found.values.dtype == np.float64, len(count) == 1, found.how in WAYS]
    forms += [found.values.ndim == 2 and found.values.shape[:1] == count and found.values.shape[1] <= min(found.shape)]
    forms += [rows is None or (rows.dtype == np.int64 and rows.shape == count), bool(np.all(np.diff(found.steps) > 0))]
    if not all(forms):
        raise ValueError(f"the arrays of entry {i} do not fit together")
    return found
