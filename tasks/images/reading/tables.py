"""Images in Arrow tables, as `datasets` stores them: a column of encoded files and a column of class numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

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

    def values(self, column: str) -> Iterator[tuple[str, object]]:
        """Yield the name of every row, as errors show it, and its value."""
        for row in self.table.rows([column]):
            yield f"{self.table.file}, row {row.number}", row.values[0] if isinstance(row, Row) else row.reason

    @property
    def label_column(self) -> str:
        """The column of classes.

        Raises:
            DataProblem: there is none.
        """
        columns = self.table.columns()
        for name in LABELS:
            if name in columns:
                return name
        self._missing("'label'")

    @property
    def image_column(self) -> str:
        """The column of structs {bytes, path}, or of bytes.

        Raises:
            DataProblem: there is none.
        """
        import pyarrow as pa

        for field in self.table.schema():
            packed = pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
            if packed or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
                return field.name
        self._missing("of images")

    def _missing(self, column: str) -> NoReturn:
        names = ", ".join(self.table.columns())
        raise malformed(self.table.file, "", f"expected a column {column}, found {names}")


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


def hub_tables(dataset: HubDataset, classes: tuple[str, ...]) -> Source:
    """Read a dataset of the hub, from the local cache if it holds this very commit.

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
    return _source(f"{dataset.name}@{revision[:7]}", parts, f"{dataset.name}\0{config}\0{revision}", classes)


def _find_parquet(folder: Path) -> list[Part]:
    """Return the Parquet files of train and test in a folder, shards in order; empty if one is missing."""
    parts: list[Part] = []
    for split in SPLITS:
        files = sorted([*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")])
        if not files or not is_complete_set(files):
            return []
        parts += [Part(split, ParquetReader(file)) for file in files]
    return parts


def _source(place: str, parts: Sequence[Part], identity: str, classes: tuple[str, ...]) -> Source:
    """Return the images of some tables.

    Args:
        place: as errors show it.
        parts: the tables.
        identity: names their content: a commit, or the hashes of the files.
        classes: names of the classes where the tables hold none.

    Raises:
        DataProblem: a column is missing.
    """
    named = parts[0].table.class_names().get(parts[0].label_column, ())
    names = tuple(named) or classes or _class_numbers(parts)
    find, read = partial(_find, parts, len(names)), partial(_read, parts)
    return Source(place, sha256_of(identity), find, classes=names, read=read)


def _class_numbers(parts: Sequence[Part]) -> tuple[str, ...]:
    labels = (label for part in parts for _, label in part.values(part.label_column))
    highest = max((label for label in labels if isinstance(label, int) and label < MOST_CLASSES), default=-1)
    return tuple(map(str, range(highest + 1)))


def _find(parts: Sequence[Part], classes: int) -> Listing:
    found = Listing(entries=[], bad=BadImages())
    for part in parts:
        for name, label in part.values(part.label_column):
            if isinstance(label, int) and 0 <= label < classes:
                found.entries.append(Entry(name=name, split=part.split, label=label))
            else:
                found.bad.add(name, "its label is no class", repr(label))
    return found


def _read(parts: Sequence[Part], entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield in the order of the tables. An image that is stored in a file elsewhere is empty, and so bad."""
    wanted = {entry.name: entry for entry in entries}
    for part in parts:
        for name, value in part.values(part.image_column):
            if entry := wanted.get(name):
                data = value.get("bytes") if isinstance(value, Mapping) else value
                yield entry, data if isinstance(data, bytes) else b""
