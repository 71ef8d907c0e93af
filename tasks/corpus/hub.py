"""A column of texts from the Hugging Face hub, or a local data set, streamed into one text file in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.core.errors import DataProblem
from bench.core.hub import unreachable

COMMIT = re.compile(r"[0-9a-f]{40}")
HOW = "Name a folder of texts instead, --task corpus:PATH; or leave --data hub out for the embedded docstrings."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which texts: a data set's id on the hub or its folder, its configuration, split and column, and the revision."""

    hub: str
    config: str | None
    split: str
    column: str
    revision: str
    on_bad: Literal["error", "skip"]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.hub, self.config, self.split)))


class Fetched(NamedTuple):
    """A text file with a blank line behind every row, the commit (or the folder's name), and rows that hold no text."""

    file: Path
    revision: str
    left_out: int


def fetch(wanted: Wanted, cache: Path) -> Fetched:
    """Stream the rows into the cache, unless they are there; no more than a few are in memory.

    Args:
        wanted: which texts.
        cache: the cache's folder.

    Raises:
        DataProblem: no network, no such data set, configuration, split or column, or a row without text.
    """
    folder = Path(wanted.hub).expanduser()
    local = folder.is_dir()
    revision = folder.resolve().name if local else _commit(wanted)
    asked = {name: value for name, value in asdict(wanted).items() if name != "revision"}  # a branch may move
    identity = [asked, _listing(folder) if local else revision]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    here = cache / "hub"
    if kept := sorted(here.glob(f"{key}-*.txt")):
        return Fetched(kept[0], revision, int(kept[0].stem.partition("-")[2]))
    if not local and (reason := unreachable()):
        raise _lost(wanted, f"no network: {reason}")
    file, left_out = _stream(wanted, None if local else revision, here, key)
    return Fetched(file, revision, left_out)


def _stream(wanted: Wanted, revision: str | None, folder: Path, key: str) -> tuple[Path, int]:
    """The file, written whole or not at all, and the number of rows without text."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as temporary:
            try:
                left_out = sum(_write(temporary, text) for text in _texts(wanted, revision))
                temporary.flush()
                file = folder / f"{key}-{left_out}.txt"
                os.replace(temporary.name, file)  # noqa: PTH105 - the name is a string
            except BaseException:
                Path(temporary.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _lost(wanted, f"{folder}: {error.strerror or error}") from error
    return file, left_out


def _commit(wanted: Wanted) -> str:
    """What a branch or tag stands for now."""
    if COMMIT.fullmatch(wanted.revision):
        return wanted.revision
    if reason := unreachable():
        raise _lost(wanted, f"no network: {reason}")
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(wanted.hub, revision=wanted.revision, timeout=10).sha)
    except Exception as error:  # the hub's libraries raise dozens of kinds, none of them ours to mend
        raise _lost(wanted, _first_line(error)) from error


def _texts(wanted: Wanted, revision: str | None) -> Iterator[str | None]:
    """The column's texts in order; None for a row without."""
    import datasets

    try:
        rows: Any = datasets.load_dataset(
            wanted.hub, wanted.config, split=wanted.split, revision=revision, streaming=True
        )
        for number, row in enumerate(rows, 1):
            if wanted.column not in row:
                known = f"{wanted} has the columns {', '.join(map(repr, row))}"
                raise DataProblem(f"no column '{wanted.column}'", known, "Name one: --set task.column=COLUMN.")
            text = row[wanted.column]
            if not isinstance(text, str) and wanted.on_bad == "error":
                todo = "Name another column, or leave such rows out with --set data.on_bad=skip."
                raise DataProblem(f"{wanted}: a row without text", f"row {number}: {text!r:.80}", todo)
            yield text if isinstance(text, str) else None
    except DataProblem:
        raise
    except Exception as error:
        raise _lost(wanted, _first_line(error)) from error


def _write(stream: Any, text: str | None) -> bool:
    """Whether there was no text."""
    if text is not None:
        stream.write(text.strip().encode(errors="surrogatepass") + b"\n\n")
    return text is None


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [(str(f), stat.st_size, stat.st_mtime_ns) for f in files for stat in [f.stat()]]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _lost(wanted: Wanted, known: str) -> DataProblem:
    return DataProblem(f"the texts of {wanted} cannot be had", known, HOW)
