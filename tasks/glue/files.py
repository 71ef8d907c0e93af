"""Read GLUE's examples from a user's folder or from the Hugging Face hub at a pinned revision."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import DataProblem
from bench.core.hub import HubDataset, cached_snapshot, load_tables
from bench.records.data import Example
from tasks.glue.examples import Examples, read_examples
from tasks.glue.schema import SCHEMAS, Schema
from tasks.io.directories import listing, normal
from tasks.io.readers import ArrowReader, is_complete_set, malformed, open_table

if TYPE_CHECKING:
    import pyarrow as pa

REPOSITORY = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SAVED = "dataset_dict.json"
"""The file that marks a folder written by `DatasetDict.save_to_disk`."""
FORMATS = (("tsv",), ("parquet",), ("jsonl", "json"))
"""Endings, in the order in which they are looked for; one format is read, never a mixture."""
Splits = dict[str, Examples]
"""Examples of `train` and `dev`, or `train`, `dev_matched` and `dev_mismatched`."""


def hub_split(split: str) -> str:
    """Return the name that the hub gives a split."""
    return split.replace("dev", "validation")


def _joined(parts: Iterable[Examples]) -> Examples:
    rows: list[Example] = []
    left_out = 0
    for part in parts:
        rows += part.rows
        left_out += part.left_out
    return Examples(rows, left_out)


# a folder: the TSV layout of GLUE's download script, Parquet or JSON as `datasets` writes them, or `save_to_disk`


def holds_splits(folder: Path, member: str) -> bool:
    """Tell whether a file of any split of the task is there, in any format."""
    return (folder / SAVED).is_file() or bool(_find(folder, member))


def read_folder(folder: Path, member: str) -> Splits:
    """Read the splits of a task.

    Raises:
        DataProblem: a split is missing, shards are missing, or a file is malformed.
    """
    schema = SCHEMAS[member]
    if files := _find(folder, member):
        if missing := [split for split in schema.splits if not files[split]]:
            names = ", ".join(file.name for split in files.values() for file in split)
            raise _missing(folder, missing[0], f"there are only: {names}")
        for split, shards in files.items():
            if not is_complete_set(shards):
                names = ", ".join(file.name for file in shards)
                raise _missing(shards[0].parent, split, f"these are not one file or one full set of shards: {names}")
        return {split: _joined(_read(file, schema) for file in shards) for split, shards in files.items()}
    if (folder / SAVED).is_file():
        return _load_from_disk(folder, schema)
    raise _missing(folder, "train", "there is no file of any split")


def _find(folder: Path, member: str) -> Mapping[str, list[Path]]:
    """Return the files of each split in the first format that has any; empty if none has."""
    here = listing(folder)
    below = [path for path in here if path.is_dir() and normal(path.name) in ("data", member)]
    for endings in FORMATS:
        for paths in (here, *map(listing, below)):
            files = {split: _files(paths, split, endings) for split in SCHEMAS[member].splits}
            if any(files.values()):
                return files
    return {}


def _files(paths: Sequence[Path], split: str, endings: tuple[str, ...]) -> list[Path]:
    """Match `train.parquet`, `train-00000-of-00002.parquet`, `train-00000-of-00002-0a1b.parquet`."""
    stems = split if endings == ("tsv",) else f"{split}|{hub_split(split)}"
    pattern = re.compile(rf"({stems})(-\d+-of-\d+(-[0-9a-f]+)?)?\.({'|'.join(endings)})")
    return [path for path in paths if pattern.fullmatch(path.name)]


def _read(file: Path, schema: Schema) -> Examples:
    table = open_table(file, quotes=False, header=schema.header, strict=True)
    columns = schema.tsv if file.suffix == ".tsv" else schema.hub
    return read_examples(table, columns, schema.labels, allow_short_rows=schema.short_rows and file.suffix == ".tsv")


def _load_from_disk(folder: Path, schema: Schema) -> Splits:
    import datasets

    try:
        loaded = datasets.DatasetDict.load_from_disk(str(folder))
        tables = {str(name): data.with_format("arrow")[:] for name, data in loaded.items()}
    except Exception as error:  # a broken folder shows as one of many kinds of error
        raise malformed(folder, "", f"expected a folder of `save_to_disk` ({error})") from error
    splits: Splits = {}
    for split in schema.splits:
        name = next((name for name in (split, hub_split(split)) if name in tables), None)
        if name is None:
            raise _missing(folder, split, f"there are only: {', '.join(tables)}")
        splits[split] = read_examples(ArrowReader(tables[name], f"{folder / name}"), schema.hub, schema.labels)
    return splits


def _missing(folder: Path, split: str, known: str) -> DataProblem:
    other = "" if split == "train" else f" ({hub_split(split)} in Parquet or JSON)"
    return DataProblem(
        f"split '{split}' is missing in {folder}",
        f"expected {split}.tsv, .parquet or .jsonl{other}; {known}",
        "Put the file there, or give another directory with --data-dir.",
    )


# the hub


def read_hub(member: str) -> Splits:
    """Read the splits of a task from the caches of `huggingface_hub` and `datasets`, else through the network.

    Raises:
        HubUnavailable: it is not in a cache, and there is no network, no answer, or an error.
        DataProblem: the hub's files are not what was expected.
    """
    schema = SCHEMAS[member]
    names = {split: hub_split(split) for split in schema.splits}
    dataset = HubDataset(name=REPOSITORY, config=member, revision=REVISION)
    if snapshot := cached_snapshot(dataset):
        files = {split: sorted((snapshot / member).glob(f"{name}-*-of-*.parquet")) for split, name in names.items()}
        if all(map(is_complete_set, files.values())):
            return {split: _joined(_read(file, schema) for file in shards) for split, shards in files.items()}
    tables = _prepared(member, names.values()) or load_tables(dataset)[0]
    place = f"{REPOSITORY}@{REVISION[:7]} {member}"
    return {
        split: read_examples(ArrowReader(tables[name], f"{place}/{name}"), schema.hub, schema.labels)
        for split, name in names.items()
    }


def _prepared(member: str, names: Iterable[str]) -> dict[str, pa.Table]:
    """Return the tables that an earlier `load_dataset` left in the cache of `datasets`; empty if one is not there.

    `datasets` itself looks there only after it has asked the hub, and takes seconds to import.
    """
    from huggingface_hub import constants

    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets").expanduser()
    for repository in (REPOSITORY.replace("/", "___"), "glue"):
        for folder in (cache / repository / member).glob(f"*/{REVISION}"):
            shards = {
                name: sorted([*folder.glob(f"glue-{name}.arrow"), *folder.glob(f"glue-{name}-*-of-*.arrow")])
                for name in names
            }
            if all(map(is_complete_set, shards.values())):
                return {name: _read_arrow(files) for name, files in shards.items()}
    return {}


def _read_arrow(files: Sequence[Path]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files])
