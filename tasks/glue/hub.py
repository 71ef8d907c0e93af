"""GLUE from the Hugging Face hub at a pinned revision: the local cache first, then the network if it answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import EnvironmentProblem
from bench.core.hub import unreachable
from tasks.glue.folder import full_set
from tasks.io.readers import Records, read_parquet, read_table

if TYPE_CHECKING:
    import pyarrow as pa

REPOSITORY = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


class NoHub(EnvironmentProblem):
    """The hub cannot be had; `what` is the reason in a few words."""


def read_hub(member: str, splits: Sequence[str], columns: Sequence[str]) -> dict[str, list[Records]]:
    """Records per split, the splits named as the hub names them (`validation`).

    Raises:
        NoHub: not in the cache, and no network or no answer.
        DataProblem: the hub's files are not what was expected.
    """
    cached = _hub_files(member, splits)
    if cached:
        return {split: [read_parquet(file, columns) for file in files] for split, files in cached.items()}
    tables = _prepared(member, splits) or _download(member)
    name = f"{REPOSITORY}@{REVISION[:7]}"
    return {split: [read_table(tables[split], columns, file=f"{name} {member}/{split}")] for split in splits}


# the cache: both forms in which `datasets` and `huggingface_hub` keep this very revision


def hub_folder(kind: str) -> Path:
    """`HF_DATASETS_CACHE` or `HF_HUB_CACHE` as their libraries resolve them, without the seconds to import those."""
    if named := os.environ.get(f"HF_{kind.upper()}_CACHE"):
        return Path(os.path.expandvars(named)).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HOME") or default)).expanduser() / kind


def _hub_files(member: str, splits: Sequence[str]) -> dict[str, list[Path]]:
    """Parquet files per split in the hub's cache; empty if one is not there."""
    name = f"datasets--{REPOSITORY.replace('/', '--')}"
    folder = hub_folder("hub") / name / "snapshots" / REVISION / member
    files = {split: sorted(folder.glob(f"{split}-*-of-*.parquet")) for split in splits}
    return files if all(map(full_set, files.values())) else {}


def _prepared(member: str, splits: Sequence[str]) -> dict[str, pa.Table]:
    """Tables per split that an earlier `load_dataset` left; empty if one is not there."""
    for name in (REPOSITORY.replace("/", "___"), "glue"):
        for folder in (hub_folder("datasets") / name / member).glob(f"*/{REVISION}"):
            files = {split: _arrow_files(folder, split) for split in splits}
            if all(map(full_set, files.values())):
                return {split: _read_arrow(shards) for split, shards in files.items()}
    return {}


def _arrow_files(folder: Path, split: str) -> list[Path]:
    return sorted([*folder.glob(f"glue-{split}.arrow"), *folder.glob(f"glue-{split}-*-of-*.arrow")])


def _read_arrow(files: Sequence[Path]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(file))).read_all() for file in files])


# the network


def _download(member: str) -> dict[str, pa.Table]:
    if _failures:
        raise NoHub(_failures[0])
    if reason := unreachable():
        raise NoHub(f"no network: {reason}")
    import datasets

    try:
        loaded = datasets.load_dataset(REPOSITORY, member, revision=REVISION)
        return {str(split): data.with_format("arrow")[:] for split, data in dict(loaded).items()}
    except Exception as error:  # the hub's libraries raise dozens of kinds, none of them ours to mend
        first = (str(error).strip() or "no message").splitlines()[0]
        _failures.append(f"the hub failed: {type(error).__name__}: {first}")
        raise NoHub(_failures[0]) from error


_failures: list[str] = []
"""Why a download failed in this process: the libraries retry for long, so that eight more tasks do not ask again."""
