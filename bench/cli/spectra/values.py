"""Raw singular values as a file for other programs: `bench spectra --values FILE`, whose ending says the format.

`.npz` has a float64 array for each matrix under its name, for `numpy.load` without pickle: (k,), descending; of a run
(S, k), with the S optimiser steps as `NAME:steps`. `.csv` and `.parquet` have a row for each singular value: `layer`,
`step` (of a run alone), the shape of the matrix `m` and `n`, `index` (1 is the largest), `value`.
"""

# the types of pandas are not complete:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import UsageError
from bench.core.files import replacing

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerValues:
    """Singular values of one matrix.

    Attributes:
        shape: (m, n) of the matrix.
        values: (k,), descending; of a run (S, k), after each of `steps`, with NaN where the matrix was not finite.
        steps: (S,), of a run.
    """

    layer: str
    shape: tuple[int, int]
    values: NDArray[np.float64]
    steps: NDArray[np.int64] | None = None


def check_file(path: Path) -> None:
    """Refuse a file that could not be written, before anything is measured.

    Raises:
        UsageError: the ending is not known, or its folder does not exist.
    """
    if path.suffix not in _WRITERS:
        known = f"known: {', '.join(_WRITERS)}"
        raise UsageError(f"--values: {path} names no known format", known, "Such as --values values.npz.")
    if not path.parent.is_dir():
        known = "nothing was measured"
        raise UsageError(f"--values: there is no folder {path.parent}", known, "Create it, or name another one.")


def write(path: Path, layers: Sequence[LayerValues]) -> None:
    """Write the file atomically.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            _WRITERS[path.suffix](temporary, layers)
    except OSError as error:
        raise UsageError(f"{path} cannot be written", str(error), "Name another one: --values FILE.") from error


def _write_npz(path: Path, layers: Sequence[LayerValues]) -> None:
    # as numpy.savez does, which takes names as arguments: a tensor may be called `file`
    from numpy.lib.format import write_array

    def arrays() -> Iterator[tuple[str, NDArray[np.float64] | NDArray[np.int64]]]:
        for one in layers:
            yield one.layer, one.values
            if one.steps is not None:
                yield f"{one.layer}:steps", one.steps

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_array(member, array, allow_pickle=False)


def _write_csv(path: Path, layers: Sequence[LayerValues]) -> None:
    def safe(name: str) -> str:
        """Return a name that a spreadsheet does not read as a formula."""
        return f"'{name}" if name[:1] in ("=", "+", "-", "@") else name

    _frame([replace(one, layer=safe(one.layer)) for one in layers]).to_csv(path, index=False)


def _write_parquet(path: Path, layers: Sequence[LayerValues]) -> None:
    _frame(layers).to_parquet(path, index=False)


def _frame(layers: Sequence[LayerValues]) -> pandas.DataFrame:
    import pandas

    return pandas.concat([_rows(one) for one in layers], ignore_index=True)


def _rows(one: LayerValues) -> pandas.DataFrame:
    import numpy as np
    import pandas

    values = np.atleast_2d(one.values)
    looks, count = values.shape
    steps = {} if one.steps is None else {"step": one.steps.repeat(count)}
    shape = {"m": one.shape[0], "n": one.shape[1]}
    index = np.tile(np.arange(1, count + 1, dtype=np.int64), looks)
    return pandas.DataFrame({"layer": one.layer, **steps, **shape, "index": index, "value": values.ravel()})


_WRITERS: dict[str, Callable[[Path, Sequence[LayerValues]], None]] = {
    ".npz": _write_npz,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
