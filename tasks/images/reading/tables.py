"""Images in Arrow tables, as `datasets` stores them: a column of encoded files and a column of class numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from bench.core.errors import DataProblem
from bench.core.hub import HubDataset, cached_snapshot, load_tables
from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, hashed_file, sha256_of
from tasks.io.readers import ArrowReader, ParquetReader, Row, is_complete_set, malformed

SPLITS: tuple[Split, ...] = ("train", "test")
MOST_CLASSES = 10**6
"""A column of larger numbers holds no classes, and takes no memory."""
LABELS = ("fine_label", "label", "cls", "labels")
"""Columns of the class; the first one present is read (CIFAR-100 has a coarse one too)."""
Table = ParquetReader | ArrowReader
Part = tuple[Split, Table]


def _label_column(table: Table) -> str:
    columns = table.columns()
    for name in LABELS:
        if name in columns:
            return name
    raise _missing(table, "'label'")


def _image_column(table: Table) -> str:
    """Return the name of the column of structs {bytes, path}, or of bytes."""
    import pyarrow as pa

    for field in table.schema():
        packed = pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        if packed or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            return field.name
    raise _missing(table, "of images")


def _missing(table: Table, column: str) -> DataProblem:
    return malformed(table.file, "", f"expected a column {column}, found {', '.join(table.columns())}")


def _values(table: Table, column: str) -> Iterator[tuple[str, object]]:
    """Yield the name of every row, as errors show it, and its value."""
    for row in table.rows([column]):
        yield f"{table.file}, row {row.number}", row.values[0] if isinstance(row, Row) else row.reason


def folder_tables(folder: Path, classes: tuple[str, ...]) -> Source | None:
    """Return the images of the Parquet files in a folder or in its `data/`; None if it has none."""
    for place in (folder, folder / "data"):
        if parts := _find_parquet(place):
            identity = "\0".join(hashed_file(Path(table.file))["sha256"] for _, table in parts)
            return _source(str(place), parts, identity, classes)
    return None


def hub_tables(dataset: HubDataset, classes: tuple[str, ...]) -> tuple[Source, str]:
    """Return a dataset of the hub, from the local cache if it holds this very commit; and the short commit.

    Raises:
        HubUnavailable: it is not in the cache, and cannot be downloaded.
    """
    snapshot, config = cached_snapshot(dataset), dataset.config or "default"
    parts: list[Part] = _find_parquet(snapshot / config) if snapshot else []
    revision = dataset.revision
    if not parts:
        tables, revision = load_tables(dataset)
        if missing := [split for split in SPLITS if split not in tables]:
            raise malformed(dataset.name, "", f"expected a split '{missing[0]}', found {', '.join(tables)}")
        parts = [(split, ArrowReader(tables[split], f"{dataset.name}, {split}")) for split in SPLITS]
    place, identity = f"{dataset.name}@{revision[:7]}", f"{dataset.name}\0{config}\0{revision}"
    return _source(place, parts, identity, classes), revision[:7]


def _find_parquet(folder: Path) -> list[Part]:
    """Return the Parquet files of train and test in a folder, shards in order; empty if one is missing."""
    parts: list[Part] = []
    for split in SPLITS:
        files = sorted([*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")])
        if not is_complete_set(files):
            return []
        parts.extend((split, ParquetReader(file)) for file in files)
    return parts


def _source(place: str, parts: Sequence[Part], identity: str, classes: tuple[str, ...]) -> Source:
    """Return the images of some tables; `identity` is a commit or hashes, `classes` are for tables without names."""
    _, first = parts[0]
    names = tuple(first.class_names().get(_label_column(first), ())) or classes
    if not names:
        labels = (label for _, table in parts for _, label in _values(table, _label_column(table)))
        highest = max((label for label in labels if isinstance(label, int) and label < MOST_CLASSES), default=-1)
        names = tuple(map(str, range(highest + 1)))

    @cache
    def listing() -> Listing:
        entries, bad = list[Entry](), BadImages()
        for split, table in parts:
            for name, label in _values(table, _label_column(table)):
                if isinstance(label, int) and 0 <= label < len(names):
                    entries.append(Entry(name, split, label))
                else:
                    bad.add(name, "its label is no class", repr(label))
        return Listing(entries, bad)

    def read(entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        wanted = {entry.name: entry for entry in entries}
        for _, table in parts:
            for name, value in _values(table, _image_column(table)):
                if entry := wanted.get(name):
                    data = value.get("bytes") if isinstance(value, Mapping) else value
                    yield entry, data if isinstance(data, bytes) else b""  # stored in a file elsewhere: a bad image

    return Source(place, sha256_of(identity), listing, read, classes=names)
