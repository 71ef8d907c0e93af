"""Tokenised examples as flat arrays, cached in safetensors files and mapped into memory, never read as a whole.

A file is named after the hash of data, tokenizer and length.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from bench.core.errors import EnvironmentProblem
from bench.core.files import cache_folder, replacing
from bench.records.data import Example

CHUNK = 4096  # most texts per call of the tokenizer
CHARACTERS = 1 << 18
"""Most characters per call, unless one text is longer: the tokenizer takes a hundred bytes of memory for each."""
COLUMNS = {
    "lengths": ("I64", "<i8"),
    "labels": ("F64", "<f8"),
    "ids": ("I32", "<i4"),
    "unknown": ("I32", "<i4"),
    "types": ("I8", "<i1"),
    "cut": ("I8", "<i1"),
}
"""Arrays in the file's order, which keeps each aligned: type in safetensors, type in numpy."""
Tokenizer = Any
"""One of transformers: texts → `BatchEncoding`."""
Columns = dict[str, np.ndarray]
"""The arrays of some examples: token and segment ids end to end, the others (n,)."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token and segment ids of N examples; in memory, or mapped from a file that may be larger than it.

    Example i is [starts[i], starts[i] + lengths[i]) of both. Labels are float64, in which class indices are exact,
    (N,) or (N, k). `cut` is 1 where an example was longer than `max_length`, else 0; `unknown` is the number of its
    tokens that stand for what the tokenizer does not know.
    """

    ids: np.ndarray
    types: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    cut: np.ndarray
    unknown: np.ndarray

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids and segments of one example."""
        start = self.starts[index]
        part = slice(start, start + self.lengths[index])
        return self.ids[part], self.types[part]

    def take(self, index: np.ndarray) -> Tokens:
        """Return some of the examples, in this order; no token is copied."""
        parts = {name: getattr(self, name)[index] for name in ("starts", "lengths", "labels", "cut", "unknown")}
        return replace(self, **parts)


def tokenise(rows: Iterable[Example], tokenizer: Tokenizer, *, key: str, max_length: int) -> Tokens:
    """Tokenise examples, or read them from the cache.

    Texts are read a few at a time and their tokens are written to the cache at once: neither has to fit into memory.

    Args:
        key: identifies data, split and tokenizer by content.
        max_length: longer examples are truncated.

    Raises:
        EnvironmentProblem: the cache cannot be written, and the examples are no list: they may not fit into memory.
    """
    name = hashlib.sha256(f"5{key}{max_length}".encode()).hexdigest()
    file = cache_folder() / "tokens" / f"{name}.safetensors"
    columns = _mapped(file)
    if columns is None:
        try:
            _write(_encode(rows, tokenizer, max_length), file)
        except OSError as error:
            if not isinstance(rows, list):
                what = "a dataset of this size needs the cache, which cannot be written"
                todo = "Free some space, or name another folder with LOWRANK_BENCH_CACHE."
                raise EnvironmentProblem(what, f"{file.parent}: {error.strerror or error}", todo) from error
        columns = _mapped(file)
    return in_memory(rows, tokenizer, max_length) if columns is None else _tokens(columns)


def in_memory(rows: Iterable[Example], tokenizer: Tokenizer, max_length: int) -> Tokens:
    """Tokenise examples, as `tokenise` does, and keep them in memory alone."""
    parts = list(_encode(rows, tokenizer, max_length))
    return _tokens({name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})


def _tokens(columns: Columns) -> Tokens:
    lengths = columns["lengths"]
    if len(columns["labels"]) > len(lengths):  # a file holds them end to end
        columns["labels"] = columns["labels"].reshape(len(lengths), -1)
    return Tokens(starts=np.cumsum(lengths, dtype=np.int64) - lengths, **columns)


def _encode(rows: Iterable[Example], tokenizer: Tokenizer, max_length: int) -> Iterator[Columns]:
    """Yield at least one part: that of no examples has empty arrays."""
    for batch in _batches(rows):
        is_pair = bool(batch) and batch[0].text_pair is not None
        second = [row.text_pair or "" for row in batch] if is_pair else None
        out = tokenizer([row.text for row in batch], second, truncation=True, max_length=max_length) if batch else None
        tokens, kinds = (out["input_ids"], out.get("token_type_ids")) if out else ([], None)
        full = [number for number, row in enumerate(tokens) if len(row) == max_length]
        cut = np.zeros(len(tokens), dtype=np.int8)
        if out and out.encodings:
            cut[full] = [bool(out.encodings[number].overflowing) for number in full]
        elif full:  # tokenizers in Python do not say what they cut off
            pairs = [second[number] for number in full] if second else None
            whole = tokenizer([batch[number].text for number in full], pairs, truncation=False)
            cut[full] = [len(row) > max_length for row in whole["input_ids"]]
        ids = np.fromiter(chain.from_iterable(tokens), dtype=np.int32)
        yield {
            "ids": ids,
            "types": np.fromiter(chain.from_iterable(kinds), dtype=np.int8) if kinds else np.zeros_like(ids, np.int8),
            "lengths": np.fromiter(map(len, tokens), dtype=np.int64),
            "labels": np.asarray([row.label for row in batch], dtype=np.float64),
            "cut": cut,
            "unknown": np.asarray([row.count(tokenizer.unk_token_id) for row in tokens], dtype=np.int32),
        }


def _batches(rows: Iterable[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    size = 0
    for row in rows:
        length = len(row.text) + len(row.text_pair or "")
        if batch and (len(batch) == CHUNK or size + length > CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += length
    yield batch


def _write(parts: Iterable[Columns], file: Path) -> None:
    """Write arrays that come in parts, whole or not at all; an OSError if there is no space or no permission."""
    with replacing(file) as temporary, ExitStack() as stack:
        # sizes are known only at the end, so each column has a file of its own until then
        columns = {name: stack.enter_context(tempfile.TemporaryFile(dir=file.parent)) for name in COLUMNS}
        for part in parts:
            for name, (_, dtype) in COLUMNS.items():
                columns[name].write(np.ascontiguousarray(part[name], dtype=dtype).tobytes())
        header: dict[str, object] = {}
        start = 0
        for name, (kind, dtype) in COLUMNS.items():
            end = start + columns[name].tell()
            shape = [(end - start) // np.dtype(dtype).itemsize]
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
            start = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with temporary.open("wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            for column in columns.values():
                column.seek(0)
                shutil.copyfileobj(column, target, 1 << 20)


def _mapped(file: Path) -> Columns | None:
    """Map the arrays of a file; None where there is no such file, or it is broken or of another kind."""
    try:
        with safe_open(file, framework="numpy") as tensors:  # checks header, offsets and size
            if set(tensors.keys()) != set(COLUMNS):
                return None
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        columns: Columns = {}
        for name, (kind, dtype) in COLUMNS.items():
            entry = header[name]
            if entry["dtype"] != kind:
                return None
            shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
            if start == end:  # an empty part of a file cannot be mapped
                columns[name] = np.zeros(shape, dtype)
            else:
                columns[name] = np.memmap(file, dtype=dtype, mode="r", offset=8 + size + start, shape=shape)
        return columns
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
