"""Images in Arrow tables, as `datasets` stores them: a column of encoded files and a column of class numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.core.files import sha256
from bench.core.hub import HubDataset, cached_snapshot, load_tables
from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, sha256_of
from tasks.io.readers import malformed

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS: tuple[Split, ...] = ("train", "test")
BATCH = 256
"""Rows in memory at a time."""
MOST_CLASSES = 10**6
"""A column of larger numbers holds no classes, and takes no memory."""
LABELS = ("fine_label", "label", "cls", "labels")
"""Columns of the class; the first one present is read (CIFAR-100 has a coarse one too)."""


class TablePart(NamedTuple):
    """A table of one split: a Parquet file, or a table in memory or memory-mapped."""

    split: Split
    name: str
    schema: pa.Schema
    data: Path | pa.Table


def _source(place: str, parts: Sequence[TablePart], identity: str, classes: tuple[str, ...]) -> Source:
    """Return the images of some tables.

    Args:
        place: as errors show it.
        parts: the tables.
        identity: names their content: a commit, or the hashes of the files.
        classes: names of the classes where the tables hold none.

    Raises:
        DataProblem: a column is missing.
    """
    names = _class_names(parts[0].schema, _label_column(parts[0])) or classes or _class_numbers(parts)
    find, read = partial(_find, parts, len(names)), partial(_read, parts)
    return Source(place, sha256_of(identity), find, classes=names, read=read)


def _class_numbers(parts: Sequence[TablePart]) -> tuple[str, ...]:
    labels = (label for part in parts for label in _values(part, _label_column(part)))
    highest = max((label for label in labels if isinstance(label, int) and label < MOST_CLASSES), default=-1)
    return tuple(map(str, range(highest + 1)))


def _find(parts: Sequence[TablePart], classes: int) -> Listing:
    found = Listing(entries=[], bad=BadImages())
    for part in parts:
        for row, label in enumerate(_values(part, _label_column(part)), 1):
            name = f"{part.name}, row {row}"
            if isinstance(label, int) and 0 <= label < classes:
                found.entries.append(Entry(name=name, split=part.split, label=label))
            else:
                found.bad.add(name, "its label is no class", repr(label))
    return found


def _read(parts: Sequence[TablePart], entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield in the order of the tables. An image that is stored in a file elsewhere is empty, and so bad."""
    wanted = {entry.name: entry for entry in entries}
    for part in parts:
        for row, value in enumerate(_values(part, _image_column(part)), 1):
            if entry := wanted.get(f"{part.name}, row {row}"):
                data = value.get("bytes") if isinstance(value, Mapping) else value
                yield entry, data if isinstance(data, bytes) else b""


def _values(part: TablePart, column: str) -> Iterator[object]:
    """Yield one column, row by row.

    Raises:
        DataProblem: the file is broken.
    """
    if not isinstance(part.data, Path):
        for batch in part.data.select([column]).to_batches(BATCH):
            yield from batch.column(0).to_pylist()
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(part.data) as file:
            for batch in file.iter_batches(BATCH, columns=[column]):
                yield from batch.column(0).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise malformed(part.data, "", f"broken Parquet ({_first_line(error)})") from error


def _label_column(part: TablePart) -> str:
    names: list[str] = part.schema.names
    for name in LABELS:
        if name in names:
            return name
    raise malformed(part.name, "", f"expected a column 'label', found {', '.join(names)}")


def _image_column(part: TablePart) -> str:
    """Find the column of structs {bytes, path}, or of bytes."""
    import pyarrow as pa

    for field in part.schema:
        packed = pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        if packed or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            return field.name
    raise malformed(part.name, "", f"expected a column of images, found {', '.join(part.schema.names)}")


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Return the names that `datasets` stores in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def find_parquet(folder: Path) -> list[TablePart]:
    """Return the Parquet files of train and test in a folder, shards in order; empty if one is missing.

    Raises:
        DataProblem: a file is not a Parquet file.
    """
    files = {split: sorted([*folder.glob(f"{split}.parquet"), *folder.glob(f"{split}-*.parquet")]) for split in SPLITS}
    if not all(map(_is_complete, files.values())):
        return []
    return [_open_parquet(file, split) for split in SPLITS for file in files[split]]


def _is_complete(files: Sequence[Path]) -> bool:
    """Whether the files are one file, or every shard of one set (`-00000-of-00002`)."""
    totals = {int((re.search(r"-of-(\d+)", file.name) or ["", "1"])[1]) for file in files}
    return totals == {len(files)}


def _open_parquet(file: Path, split: Split) -> TablePart:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            return TablePart(split, str(file), opened.schema_arrow, file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise malformed(file, "", f"expected a Parquet file ({_first_line(error)})") from error


def folder_tables(folder: Path, classes: tuple[str, ...]) -> Source | None:
    """Read the Parquet files of a folder or of `data/` in it; None if it has none.

    Raises:
        DataProblem: a file is broken.
    """
    for place in (folder, folder / "data"):
        if parts := find_parquet(place):
            return _source(str(place), parts, "\0".join(sha256(Path(part.name)) for part in parts), classes)
    return None


def hub_tables(dataset: HubDataset, classes: tuple[str, ...]) -> Source:
    """Read a dataset of the hub, from the local cache if it holds this very commit.

    Raises:
        HubUnavailable: it is not in the cache, and cannot be downloaded.
        DataProblem: a table is not as expected.
    """
    snapshot, config = cached_snapshot(dataset), dataset.config or "default"
    parts, revision = find_parquet(snapshot / config) if snapshot else [], dataset.revision
    if not parts:
        tables, revision = load_tables(dataset)
        if missing := [split for split in SPLITS if split not in tables]:
            raise malformed(dataset.name, "", f"expected a split '{missing[0]}', found {', '.join(tables)}")
        for split in SPLITS:
            parts.append(TablePart(split, f"{dataset.name}, {split}", tables[split].schema, tables[split]))
    return _source(f"{dataset.name}@{revision[:7]}", parts, f"{dataset.name}\0{config}\0{revision}", classes)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
