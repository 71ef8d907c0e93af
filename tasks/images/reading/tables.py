"""Images in Arrow tables, as `datasets` stores them: a column of encoded files and a column of class numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.core.hub import HubDataset, cached_snapshot, load_tables
from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, hashed_file, sha256_of
from tasks.io.readers import ArrowReader, ParquetReader, Row, is_complete_set, malformed

SPLITS: tuple[Split, ...] = ("train", "test")
MOST_CLASSES = 10**6
"""A column of larger numbers holds no classes, and takes no memory."""
LABELS = ("fine_label", "label", "cls", "labels")
"""Columns of the class; the first one present is read (CIFAR-100 has a coarse one too)."""


class Part(NamedTuple):
    """A table of one split."""

    split: Split
    table: ParquetReader | ArrowReader

    def labels(self) -> Iterator[tuple[str, object]]:
        """Yield the name of every row, as errors show it, and its class.

        Raises:
            DataProblem: there is no such column.
        """
        return self._values(self.label_column)

    def images(self) -> Iterator[tuple[str, object]]:
        """Yield the name of every row, and the struct {bytes, path} or the bytes of its image.

        Raises:
            DataProblem: there is no such column.
        """
        import pyarrow as pa

        def holds_bytes(kind: pa.DataType) -> bool:
            packed = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            return packed or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

        fields = self.table.schema()
        return self._values(self._first((field.name for field in fields if holds_bytes(field.type)), "of images"))

    @property
    def label_column(self) -> str:
        """The column of classes."""
        columns = self.table.columns()
        return self._first((name for name in LABELS if name in columns), "'label'")

    def _values(self, column: str) -> Iterator[tuple[str, object]]:
        for row in self.table.rows([column]):
            yield f"{self.table.file}, row {row.number}", row.values[0] if isinstance(row, Row) else row.reason

    def _first(self, columns: Iterable[str], expected: str) -> str:
        for name in columns:
            return name
        names = ", ".join(self.table.columns())
        raise malformed(self.table.file, "", f"expected a column {expected}, found {names}")


def folder_tables(folder: Path, classes: tuple[str, ...]) -> Source | None:
    """Read the Parquet files of a folder or of `data/` in it; None if it has none.

    Raises:
        DataProblem: a file is broken.
    """
    for place in (folder, folder / "data"):
        if parts := _find_parquet(place):
            identity = "\0".join(hashed_file(Path(part.table.file))["sha256"] for part in parts)
            return _source(str(place), parts, identity, classes)
    return None


def hub_tables(dataset: HubDataset, classes: tuple[str, ...]) -> tuple[Source, str]:
    """Return a dataset of the hub, from the local cache if it holds this very commit; and the short commit.

    Raises:
        HubUnavailable: it is not in the cache, and cannot be downloaded.
        DataProblem: a table is not as expected.
    """
    snapshot, config = cached_snapshot(dataset), dataset.config or "default"
    parts, revision = _find_parquet(snapshot / config) if snapshot else [], dataset.revision
    if not parts:
        tables, revision = load_tables(dataset)
        if missing := [split for split in SPLITS if split not in tables]:
            raise malformed(dataset.name, "", f"expected a split '{missing[0]}', found {', '.join(tables)}")
        parts = [Part(split, ArrowReader(tables[split], f"{dataset.name}, {split}")) for split in SPLITS]
    place, identity = f"{dataset.name}@{revision[:7]}", f"{dataset.name}\0{config}\0{revision}"
    return _source(place, parts, identity, classes), revision[:7]


def _find_parquet(folder: Path) -> list[Part]:
    """Return the Parquet files of train and test in a folder, shards in order; empty if one is missing."""
    parts: list[Part] = []
    for split in SPLITS:
        files = sorted([*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")])
        if not is_complete_set(files):
            return []
        parts += [Part(split, ParquetReader(file)) for file in files]
    return parts


def _source(place: str, parts: Sequence[Part], identity: str, classes: tuple[str, ...]) -> Source:
    """Return the images of some tables; `identity` is a commit or hashes, `classes` are for tables without names."""
    names = tuple(parts[0].table.class_names().get(parts[0].label_column, ())) or classes
    if not names:
        labels = (label for part in parts for _, label in part.labels())
        highest = max((label for label in labels if isinstance(label, int) and label < MOST_CLASSES), default=-1)
        names = tuple(map(str, range(highest + 1)))
    find, read = partial(_find, parts, len(names)), partial(_read, parts)
    return Source(place, sha256_of(identity), find, read, classes=names)


def _find(parts: Sequence[Part], classes: int) -> Listing:
    listing = Listing([], BadImages())
    for part in parts:
        for name, label in part.labels():
            if isinstance(label, int) and 0 <= label < classes:
                listing.entries.append(Entry(name, part.split, label))
            else:
                listing.bad.add(name, "its label is no class", repr(label))
    return listing


def _read(parts: Sequence[Part], entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield in the order of the tables. An image that is stored in a file elsewhere is empty, and so bad."""
    wanted = {entry.name: entry for entry in entries}
    for part in parts:
        for name, value in part.images():
            if entry := wanted.get(name):
                data = value.get("bytes") if isinstance(value, Mapping) else value
                yield entry, data if isinstance(data, bytes) else b""
