"""Pictures in Arrow tables, as `datasets` keeps them: a column of encoded files, a column of class numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.images.names import Entry, Listing
from tasks.images.rejects import Rejects
from tasks.io.idx import bad

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256
"""Rows in memory at a time."""
MOST = 10**6
"""Classes at most: a column of other numbers is no class, and asks for no memory."""
LABELS = ("fine_label", "label", "cls", "labels")
"""Columns of the class, the first that is there counts (CIFAR-100 has a coarse one too)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One table of a split.

    Attributes:
        split: train, validation or test.
        name: as errors name it.
        schema: of the table; `datasets` keeps its features in the metadata.
        batches: the rows of some columns, a part at a time.
    """

    split: str
    name: str
    schema: pa.Schema
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


class Tables:
    """Tables of one data set. `identity` names its content: a pinned revision, or the hash of its files.

    Raises:
        DataProblem: a column is missing.
    """

    def __init__(self, place: str, parts: Sequence[Part], identity: str, classes: tuple[str, ...]) -> None:
        self.place, self.parts = place, parts
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()
        self.files: list[dict[str, str]] = []
        self.classes = _names(parts[0].schema, self._label(parts[0])) or classes or self._numbers()

    def _numbers(self) -> tuple[str, ...]:
        """Names of classes that have none."""
        labels = (label for part in self.parts for _, label in self._labels(part))
        highest = max((label for label in labels if isinstance(label, int) and label < MOST), default=-1)
        return tuple(map(str, range(highest + 1)))

    def listing(self) -> Listing:
        """Every row whose label is a class."""
        entries: list[Entry] = []
        rejects = Rejects()
        row = 0
        for part in self.parts:
            for number, label in self._labels(part):
                name = f"{part.name}, row {number}"
                if isinstance(label, int) and 0 <= label < len(self.classes):
                    entries.append(Entry(name=name, split=part.split, label=label, key=row))
                else:
                    rejects.add(name, "its label is no class", repr(label))
                row += 1
        return Listing(entries=entries, rejects=rejects)

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
        """In the order of the tables."""
        wanted = {entry.key: position for position, entry in enumerate(entries)}
        row = 0
        for part in self.parts:
            for batch in part.batches([self._image(part)]):
                for value in batch.column(0).to_pylist():
                    position = wanted.get(row)
                    row += 1
                    if position is not None:
                        yield position, _bytes(value)

    def _labels(self, part: Part) -> Iterator[tuple[int, Any]]:
        rows = (label for batch in part.batches([self._label(part)]) for label in batch.column(0).to_pylist())
        return enumerate(rows, 1)

    def _label(self, part: Part) -> str:
        found = next((name for name in LABELS if name in part.schema.names), None)
        return found or bad(Path(part.name), f"expected a column 'label', found {', '.join(part.schema.names)}")

    def _image(self, part: Part) -> str:
        """The column of structs {bytes, path}, or of bytes."""
        import pyarrow as pa

        for field in part.schema:
            packed = pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
            if packed or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
                return field.name
        bad(Path(part.name), f"expected a column of images, found {', '.join(part.schema.names)}")


def _bytes(value: Any) -> bytes:
    """Nothing where the picture lies in a file elsewhere: that is then no image file."""
    return (value.get("bytes") if isinstance(value, Mapping) else value) or b""


def _names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def parquet(file: Path, split: str) -> Part:
    """A Parquet file.

    Raises:
        DataProblem: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = (pa.ArrowException, OSError, ValueError)
    try:
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow
    except broken as error:
        bad(file, f"expected a Parquet file ({str(error).partition(chr(10))[0]})")

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(file) as opened:
                yield from opened.iter_batches(BATCH, columns=list(columns))
        except broken as error:
            bad(file, f"broken Parquet ({str(error).partition(chr(10))[0]})")

    return Part(split=split, name=str(file), schema=schema, batches=batches)


def table(data: pa.Table, split: str, name: str) -> Part:
    """A table in memory, or memory-mapped."""
    return Part(
        split=split,
        name=name,
        schema=data.schema,
        batches=lambda columns: iter(data.select(list(columns)).to_batches(BATCH)),
    )
