"""One task's folder into records: the TSV layout, Parquet or JSON as `datasets` writes them, or `save_to_disk`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.core.errors import DataProblem
from tasks.glue.schema import SCHEMAS, Schema
from tasks.io.directories import listing, normal
from tasks.io.readers import Records, malformed, read_json, read_parquet, read_table, read_tsv

SAVED = "dataset_dict.json"
"""The file that marks a folder written by `DatasetDict.save_to_disk`."""
FORMATS = (("tsv",), ("parquet",), ("jsonl", "json"))
"""Endings, in the order in which they are looked for; one format is read, never a mixture."""
Found = Mapping[str, list[Path]]


def holds_splits(folder: Path, member: str) -> bool:
    """Whether a file of any split of the task is there, in any format."""
    return (folder / SAVED).is_file() or bool(_find(folder, member))


def read_folder(folder: Path, member: str) -> dict[str, list[Records]]:
    """Records per split (`train`, `dev`, or `dev_matched` and `dev_mismatched`), one for each file.

    Raises:
        DataProblem: a split is missing, shards are missing, a file is malformed.
    """
    schema = SCHEMAS[member]
    if found := _find(folder, member):
        missing = [split for split in schema.splits if not found[split]]
        if missing:
            present = ", ".join(path.name for files in found.values() for path in files)
            raise _missing(folder, missing[0], f"there are only: {present}")
        return {split: [_read(file, schema) for file in _complete(split, files)] for split, files in found.items()}
    if (folder / SAVED).is_file():
        return _load_from_disk(folder, schema)
    raise _missing(folder, "train", "there is no file of any split")


def _find(folder: Path, member: str) -> Found:
    """Files per split in the first format that has any; empty if none has."""
    here = listing(folder)
    below = [path for path in here if path.is_dir() and normal(path.name) in ("data", member)]
    for endings in FORMATS:
        for paths in (here, *map(listing, below)):
            found = {split: _files(paths, split, endings) for split in SCHEMAS[member].splits}
            if any(found.values()):
                return found
    return {}


def _files(paths: Sequence[Path], split: str, endings: tuple[str, ...]) -> list[Path]:
    """`train.parquet`, `train-00000-of-00002.parquet`, `train-00000-of-00002-0a1b.parquet`; `validation` is `dev`."""
    stems = split if endings == ("tsv",) else f"{split}|{split.replace('dev', 'validation')}"
    pattern = re.compile(rf"({stems})(-\d+-of-\d+(-[0-9a-f]+)?)?\.({'|'.join(endings)})")
    return [path for path in paths if pattern.fullmatch(path.name)]


def full_set(files: Sequence[Path]) -> bool:
    """Whether the files are one file, or every shard of one set (`-00000-of-00002`)."""
    totals = {(re.search(r"-of-(\d+)", file.name) or ["", "1"])[1] for file in files}
    return len(totals) == 1 and int(totals.pop()) == len(files)


def _complete(split: str, files: list[Path]) -> list[Path]:
    if not full_set(files):
        names = ", ".join(file.name for file in files)
        raise _missing(files[0].parent, split, f"these are not one file or one full set of shards: {names}")
    return files


def _read(file: Path, schema: Schema) -> Records:
    if file.suffix == ".tsv":
        return read_tsv(file, schema.tsv, header=schema.header, short_rows=schema.short_rows)
    return (read_parquet if file.suffix == ".parquet" else read_json)(file, schema.hub)


def _load_from_disk(folder: Path, schema: Schema) -> dict[str, list[Records]]:
    import datasets

    try:
        loaded = datasets.DatasetDict.load_from_disk(str(folder))
        tables = {str(name): data.with_format("arrow")[:] for name, data in loaded.items()}
    except Exception as error:  # a broken folder shows as one of many kinds of error
        raise malformed(folder, "", f"expected a folder of `save_to_disk` ({error})") from error
    records: dict[str, list[Records]] = {}
    for split in schema.splits:
        name = next((name for name in (split, split.replace("dev", "validation")) if name in tables), None)
        if name is None:
            raise _missing(folder, split, f"there are only: {', '.join(tables)}")
        records[split] = [read_table(tables[name], schema.hub, file=f"{folder / name}")]
    return records


def _missing(folder: Path, split: str, known: str) -> DataProblem:
    other = "" if split == "train" else f" ({split.replace('dev', 'validation')} in Parquet or JSON)"
    return DataProblem(
        f"split '{split}' is missing in {folder}",
        f"expected {split}.tsv, .parquet or .jsonl{other}; {known}",
        "Put the file there, or give another directory with --data-dir.",
    )
