"""What a run's network said of every evaluated example, kept beside its record in `predictions.parquet`.

A row is an example: `split`, `index` in the split, `label`, and `outputs` in float32. Labels and outputs are numbers,
or lists of a fixed length. pandas, polars and DuckDB read the file as it is.
"""

# pyarrow has no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import EnvironmentProblem
from bench.core.files import regular, replacing
from bench.records.files import checked
from bench.records.record import DoneRecord

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FILE = "predictions.parquet"
MOST_BYTES = 512 * 2**20
"""Size of a file that is read, packed and unpacked; ImageNet's 50,000 examples of 1000 classes have 200 MB."""
_COLUMNS = ("split", "index", "label", "outputs")
_NUMBERS = re.compile(r"(?:u?int|float)\d+|double|float")


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The examples of a split in their order.

    Attributes:
        index: (N,), position of each example in its split, ascending.
        labels: (N,) classes or numbers, or (N, k).
        outputs: (N, classes) logits, or (N,) or (N, k) predicted numbers.
    """

    index: NDArray[np.integer]
    labels: NDArray[np.generic]
    outputs: NDArray[np.floating]


def fit(splits: Mapping[str, Predictions]) -> bool:
    """Whether labels and outputs are small enough to be read again."""
    return 2 * sum(one.labels.nbytes + one.outputs.nbytes for one in splits.values()) <= MOST_BYTES


def write(path: Path, splits: Mapping[str, Predictions]) -> None:
    """Write the splits; the same values give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(split: str, found: Predictions) -> pa.Table:
        values = (found.index, found.labels, found.outputs)
        return pa.table([pa.array([split] * len(found.index)), *map(_column, values)], names=_COLUMNS)

    whole = pa.concat_tables(table(*item) for item in splits.items())
    with replacing(path, sync=True) as temporary:
        pq.write_table(whole, temporary, compression="zstd")


def load(run: DoneRecord, folder: Path) -> Predictions | None:
    """Read what a run kept of the split of its score; None if it kept nothing.

    Args:
        run: with its `files`, so not one of an index.
        folder: the run's folder.

    Raises:
        EnvironmentProblem: the file was changed after the run had written it, or does not fit the record.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path, primary = checked(run, folder, FILE), run.metrics.primary
    if not path.exists():
        return None
    try:
        with pq.ParquetFile(regular(path, most=MOST_BYTES)) as file:
            unpacked = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            expected = sum(run.source.evaluation_examples.values())
            if file.metadata.num_rows != expected or unpacked > MOST_BYTES or file.schema_arrow.names != [*_COLUMNS]:
                raise _unfit(path, f"{file.metadata.num_rows:,} rows of {', '.join(file.schema_arrow.names)[:80]}")
            table = file.read()
        of_split = table.filter(pc.field("split") == primary.split)
        index, labels, outputs = (_values(of_split[name]) for name in _COLUMNS[1:])
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unfit(path, str(error)[:200]) from error
    if len(index) != primary.n or not _ascends(index) or not _finite(outputs):
        known = f"{len(index):,} examples of {primary.split}, of which the record has {primary.n:,}"
        raise _unfit(
            path,
            known if len(index) != primary.n else "an index does not ascend, or an output is missing or not finite",
        )
    return Predictions(index, labels, outputs)


def _ascends(index: NDArray[Any]) -> bool:
    return index.ndim == 1 and index.dtype.kind in "iu" and bool((index[1:] > index[:-1]).all())


def _finite(outputs: NDArray[Any]) -> bool:
    import numpy as np

    return outputs.dtype.kind == "f" and outputs.size > 0 and bool(np.isfinite(outputs).all())


def _column(values: NDArray[np.generic]) -> pa.Array:
    """Numbers (N,) as they are, (N, k) as lists of k."""
    import pyarrow as pa

    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    """The numbers of `_column`; raises ValueError if they are none, or some are missing."""
    import pyarrow as pa

    kind, chunk = column.type, column.combine_chunks()
    inner = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
    if not _NUMBERS.fullmatch(str(inner)):
        raise ValueError(f"a column holds {str(kind)[:60]}, not numbers")
    flat = chunk.flatten() if inner is not kind else chunk
    if chunk.null_count or flat.null_count:
        raise ValueError("a number is missing")
    values = flat.to_numpy(zero_copy_only=False)
    return values.reshape(len(chunk), kind.list_size) if inner is not kind else values


def _unfit(path: Path, known: str) -> EnvironmentProblem:
    todo = (
        f"Put it back from a copy, or remove it: intervals are then over seeds alone. {path.parent} keeps its record."
    )
    return EnvironmentProblem(f"{path} does not hold the outputs of its run", known, todo)
