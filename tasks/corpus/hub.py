"""A column of texts from the Hugging Face hub, or a local dataset, streamed into one text file in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from bench.core.errors import DataProblem
from bench.core.files import cache_folder, replacing, write_atomic
from bench.core.hub import HubDataset, HubUnavailable, commit_of, hub_access
from tasks.corpus.passages import TextIndex, Unit, index_files
from tasks.io.directories import files_below

HOW = "Name a folder of texts instead, --task corpus:PATH; or leave --data hub out for the embedded docstrings."


class HubTexts(NamedTuple):
    """Which texts: a dataset, its split and column, and what to do with rows that have no text."""

    dataset: HubDataset
    split: str
    column: str
    on_bad: Literal["error", "skip"]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.dataset.name, self.dataset.config, self.split)))


def index_texts(wanted: HubTexts, unit: Unit) -> tuple[TextIndex, str]:
    """Index the passages of a dataset, and return its commit (of a local one: the folder's name) with them.

    Raises:
        DataProblem: no network, no such dataset, configuration, split or column, a row without text, or no text.
    """
    file, revision, without_text = _fetch(wanted)
    index = index_files((file,), unit=unit, on_bad=wanted.on_bad)
    left_out = sum(index.left_out.values()) + without_text
    # the place of the first is in a file of the cache, which is of no use to the reader
    return index._replace(left_out={wanted.split: left_out} if left_out else {}, first_left_out=""), revision


def _fetch(wanted: HubTexts) -> tuple[Path, str, int]:
    """Stream the rows into a file of the cache, unless they are there; no more than a few are in memory.

    Returns:
        A text file with a blank line after every row, the commit (or the folder's name), and rows that hold no text.
    """
    dataset, folder = wanted.dataset, cache_folder() / "hub"
    try:
        local = Path(dataset.name).expanduser().resolve() if dataset.is_local else None
        revision = local.name if local else commit_of(dataset)
        files = files_below(local) if local else []
        stamp = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]]
        content = stamp if local else revision
        identity = [dataset.name, dataset.config, wanted.split, wanted.column, wanted.on_bad, content]
        file = folder / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}.txt"
        left_out = file.with_suffix(".left-out")
        if not (file.is_file() and left_out.is_file()):
            with replacing(file) as temporary, temporary.open("wb") as stream:
                missing = 0
                for text in _texts(wanted, None if local else revision):
                    missing += text is None
                    stream.write(b"" if text is None else text.strip().encode(errors="surrogatepass") + b"\n\n")
                write_atomic(left_out, str(missing).encode())
        return file, revision, int(left_out.read_text())
    except (HubUnavailable, OSError) as error:
        known = error.what if isinstance(error, HubUnavailable) else f"{folder}: {error.strerror or error}"
        raise DataProblem(f"the texts of {wanted} cannot be loaded", known, HOW) from error


def _texts(wanted: HubTexts, revision: str | None) -> Iterator[str | None]:
    """Yield the column's texts in order; None for a row without."""
    with hub_access(wanted.dataset):
        import datasets

        name, config = wanted.dataset.name, wanted.dataset.config
        rows = datasets.load_dataset(name, config, split=wanted.split, revision=revision, streaming=True)
        for number, row in enumerate(rows, 1):
            if wanted.column not in row:
                known = f"{wanted} has the columns {', '.join(map(repr, row))}"
                raise DataProblem(f"no column '{wanted.column}'", known, "Name one: --set task.column=COLUMN.")
            text = row[wanted.column]
            if not isinstance(text, str) and wanted.on_bad == "error":
                todo = "Name another column, or leave such rows out with --set data.on_bad=skip."
                raise DataProblem(f"{wanted}: a row without text", f"row {number}: {text!r:.80}", todo)
            yield text if isinstance(text, str) else None
