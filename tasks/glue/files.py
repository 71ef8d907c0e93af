"""Read GLUE's examples from a user's folder or from the Hugging Face hub at a pinned revision, and check them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.core.errors import DataProblem, plain
from bench.core.hub import HubDataset, cached_snapshot, load_tables
from bench.records.data import Example
from tasks.glue.schema import SCHEMAS, Schema
from tasks.io.directories import files_below, listing
from tasks.io.readers import ArrowReader, BadRow, Reader, is_complete_set, malformed, open_table

if TYPE_CHECKING:
    import pyarrow as pa

REPOSITORY = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SAVED = "dataset_dict.json"  # the file that marks a folder written by `DatasetDict.save_to_disk`
FORMATS = (("tsv",), ("parquet",), ("jsonl", "json"))
"""Endings, in the order in which they are looked for; one format is read, never a mixture."""
SHORT_ROWS = 1000
"""One row in so many may lack fields where a published file is known for such rows; more are a broken file."""


class Examples(NamedTuple):
    """Examples of one split or file, and the number of rows that were left out because they lack fields."""

    rows: list[Example]
    left_out: int = 0


Splits = dict[str, Examples]  # examples of `train` and `dev`, or `train`, `dev_matched` and `dev_mismatched`


def holds_splits(folder: Path, member: str) -> bool:
    """Tell whether a file of any split of the task is there, in any format."""
    return (folder / SAVED).is_file() or bool(_find(folder, member))


def read_folder(folder: Path, member: str) -> Splits:
    """Read the splits of a task: TSV of GLUE's download script, Parquet or JSON of `datasets`, or `save_to_disk`.

    Raises:
        DataProblem: a split is missing, shards are missing, or a file is malformed.
    """
    schema = SCHEMAS[member]
    if files := _find(folder, member):
        if missing := [split for split in schema.splits if not files[split]]:
            names = ", ".join(file.name for shards in files.values() for file in shards)
            raise _missing(folder, missing[0], f"there are only: {names}")
        for split, shards in files.items():
            if not is_complete_set(shards):
                names = ", ".join(file.name for file in shards)
                raise _missing(shards[0].parent, split, f"these are not one file or one full set of shards: {names}")
        return _read_files(files, schema)
    if (folder / SAVED).is_file():
        return _read_tables(_load_from_disk(folder), folder, schema)
    raise _missing(folder, "train", "there is no file of any split")


def _find(folder: Path, member: str) -> dict[str, list[Path]]:
    """Return the files of each split in the first format that has any; empty if none has."""
    here = listing(folder)
    below = [path for path in here if path.is_dir() and plain(path.name) in ("data", member)]
    for endings in FORMATS:
        for paths in (here, *map(listing, below)):
            files = {split: _matching(paths, split, endings) for split in SCHEMAS[member].splits}
            if any(files.values()):
                return files
    return {}


def _matching(paths: Sequence[Path], split: str, endings: tuple[str, ...]) -> list[Path]:
    """Match `train.parquet`, `train-00000-of-00002.parquet`, `train-00000-of-00002-0a1b.parquet`."""
    stems = split if endings == ("tsv",) else f"{split}|{_hub_split(split)}"
    pattern = re.compile(rf"({stems})(-\d+-of-\d+(-[0-9a-f]+)?)?\.({'|'.join(endings)})")
    return [path for path in paths if pattern.fullmatch(path.name)]


def _load_from_disk(folder: Path) -> dict[str, pa.Table]:
    import datasets

    files_below(folder)  # what is no file would hang
    try:
        loaded = datasets.DatasetDict.load_from_disk(str(folder))
        return {str(name): data.with_format("arrow")[:] for name, data in loaded.items()}
    except Exception as error:  # a broken folder shows as one of many kinds of error
        raise malformed(folder, "", f"expected a folder of `save_to_disk` ({error})") from error


def _missing(place: Path | str, split: str, known: str) -> DataProblem:
    other = "" if split == "train" else f" ({_hub_split(split)} in Parquet or JSON)"
    return DataProblem(
        f"split '{split}' is missing in {place}",
        f"expected {split}.tsv, .parquet or .jsonl{other}; {known}",
        "Put the file there, or give another directory with --data-dir.",
    )


def read_hub(member: str) -> Splits:
    """Read the splits of a task from the caches of `huggingface_hub` and `datasets`, else through the network.

    Raises:
        HubUnavailable: it is not in a cache, and there is no network, no answer, or an error.
        DataProblem: the hub's files are not what was expected.
    """
    schema = SCHEMAS[member]
    dataset = HubDataset(name=REPOSITORY, config=member, revision=REVISION)
    if snapshot := cached_snapshot(dataset):
        folder = snapshot / member
        files = {split: sorted(folder.glob(f"{_hub_split(split)}-*-of-*.parquet")) for split in schema.splits}
        if all(map(is_complete_set, files.values())):
            return _read_files(files, schema)
    tables = _prepared(member, list(map(_hub_split, schema.splits))) or load_tables(dataset)[0]
    return _read_tables(tables, f"{REPOSITORY}@{REVISION[:7]} {member}", schema)


def _hub_split(split: str) -> str:
    return split.replace("dev", "validation")


def _prepared(member: str, names: Iterable[str]) -> dict[str, pa.Table]:
    """Return the tables that an earlier `load_dataset` left in the cache of `datasets`; empty if one is not there.

    `datasets` itself looks there only after it has asked the hub, and takes seconds to import.
    """
    import pyarrow as pa
    from huggingface_hub import constants

    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
    for repository in (REPOSITORY.replace("/", "___"), "glue"):
        for folder in (cache / repository / member).glob(f"*/{REVISION}"):
            shards = {
                name: sorted([*folder.glob(f"glue-{name}.arrow"), *folder.glob(f"glue-{name}-*-of-*.arrow")])
                for name in names
            }
            if all(map(is_complete_set, shards.values())):
                return {name: pa.concat_tables(map(_read_stream, files)) for name, files in shards.items()}
    return {}


def _read_stream(file: Path) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def _read_files(files: Mapping[str, Sequence[Path]], schema: Schema) -> Splits:
    splits: Splits = {}
    for split, shards in files.items():
        parts = [_read_file(file, schema) for file in shards]
        rows = [row for part in parts for row in part.rows]
        splits[split] = Examples(rows, sum(part.left_out for part in parts))
    return splits


def _read_file(file: Path, schema: Schema) -> Examples:
    table = open_table(file, quotes=False, header=schema.header, strict=True)
    is_tsv = file.suffix == ".tsv"
    columns = schema.tsv if is_tsv else schema.hub
    return read_examples(table, columns, schema.labels, allow_short_rows=schema.short_rows and is_tsv)


def _read_tables(tables: Mapping[str, pa.Table], place: Path | str, schema: Schema) -> Splits:
    splits: Splits = {}
    for split in schema.splits:
        name = split if split in tables else _hub_split(split)
        if name not in tables:
            raise _missing(place, split, f"there are only: {', '.join(tables)}")
        splits[split] = read_examples(ArrowReader(tables[name], f"{place}/{name}"), schema.hub, schema.labels)
    return splits


def read_examples(
    table: Reader, columns: Sequence[str], labels: Sequence[str], *, allow_short_rows: bool = False
) -> Examples:
    """Read the examples of a table.

    Args:
        table: the file.
        columns: of the text, the second text if there is one, and the label.
        labels: class names in the order of their indices; a label may be a name or an index. Empty: a score. Class
            indices that the file itself names become those names first, as its order may differ.
        allow_short_rows: leave out rows that lack fields, as long as they are few.

    Raises:
        DataProblem: the file is malformed, a value is not what is expected, or there is no example; names file and
            line (or row).
    """
    names_in_file = table.class_names().get(columns[-1], ())
    rows: list[Example] = []
    short: list[BadRow] = []
    for row in table.rows(columns):
        if isinstance(row, BadRow):
            if not (allow_short_rows and row.is_short):
                raise table.error(row)
            short.append(row)
            continue
        *texts, label = row.values
        if isinstance(label, int) and 0 <= label < len(names_in_file):
            label = names_in_file[label]
        try:
            target = _class_index(label, labels) if labels else _score(label)
            rows.append(Example(_text(texts[0]), _text(texts[1]) if len(texts) > 1 else None, target))
        except ValueError as error:
            raise table.error(BadRow(row.number, str(error))) from error
    if len(short) * SHORT_ROWS > len(rows) + len(short):
        raise table.error(short[0])
    if not rows:
        raise table.malformed("", "expected at least one example, found none")
    return Examples(rows, len(short))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {value!r}")
    return value


def _class_index(label: object, labels: Sequence[str]) -> int:
    for index, name in enumerate(labels):
        # True == 1, but a boolean says nothing about the order of the classes
        if label in (name, str(index), index) and not isinstance(label, bool):
            return index
    numbers = " or ".join(map(str, range(len(labels))))
    raise ValueError(f"expected a label {numbers} ({', '.join(labels)}), found {label!r}")


def _score(label: object) -> float:
    if isinstance(label, str | int | float) and not isinstance(label, bool):
        with suppress(ValueError):
            if 0 <= float(label) <= 5:
                return float(label)
    raise ValueError(f"expected a score from 0 to 5, found {label!r}")
