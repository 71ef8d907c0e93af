"""Tokenised examples as flat arrays, cached on disk by the hash of data, tokenizer and length, and mapped from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.core.errors import EnvironmentProblem
from bench.records.data import Example
from tasks.text import token_file

CHUNK = 4096
"""Most texts per call of the tokenizer."""
CHARACTERS = 1 << 18
"""Most characters per call, as long as that is more than one text: the tokenizer takes a hundred bytes for each."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of N examples; in memory, or mapped from a file that may be larger than it.

    Attributes:
        ids, types: token and segment ids (total,).
        starts, lengths: example i is [starts[i], starts[i] + lengths[i]) (N,).
        labels: (N,) float64; class indices are exact in it.
    """

    ids: np.ndarray
    types: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and segments of one example."""
        start = self.starts[index]
        part = slice(start, start + self.lengths[index])
        return self.ids[part], self.types[part]

    def take(self, index: np.ndarray) -> Tokens:
        """Some of the examples, in this order; no token is copied."""
        return Tokens(
            ids=self.ids,
            types=self.types,
            starts=self.starts[index],
            lengths=self.lengths[index],
            labels=self.labels[index],
        )


class Part(NamedTuple):
    """Some examples tokenised: ids and segments end to end, lengths (n,), labels (n,)."""

    ids: np.ndarray
    types: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


def tokenise(rows: Iterable[Example], tokenizer: Any, *, key: str, max_length: int) -> Tokens:
    """Tokenise, or read what an earlier run left in the cache.

    Texts are taken a few at a time and tokens go to the cache's file at once, so neither need fit into memory.

    Args:
        rows: the examples, a list or something that reads them when asked.
        tokenizer: a fast tokenizer of transformers.
        key: identifies data, split and tokenizer by content.
        max_length: longer examples are cut.

    Raises:
        EnvironmentProblem: the cache cannot be written, and the examples are no list: they may not fit into memory.
    """
    name = hashlib.sha256(f"3{key}{max_length}".encode()).hexdigest()
    file = cache_folder() / "tokens" / f"{name}.safetensors"
    if (cached := _mapped(file)) is not None:
        return cached
    try:
        token_file.write(_encode(rows, tokenizer, max_length), file)
    except OSError as error:
        if not isinstance(rows, list):
            known = f"{file.parent}: {error.strerror or error}"
            todo = "Make room, or name another folder with LOWRANK_BENCH_CACHE."
            raise EnvironmentProblem(
                "a dataset of this size needs the cache, which cannot be written", known, todo
            ) from error
    written = _mapped(file)
    return written if written is not None else _in_memory(_encode(rows, tokenizer, max_length))


def cache_folder() -> Path:
    """`LOWRANK_BENCH_CACHE`, or `lowrank-bench` in the user's cache folder."""
    chosen = os.environ.get("LOWRANK_BENCH_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lowrank-bench"


def _mapped(file: Path) -> Tokens | None:
    arrays = token_file.read(file)
    return None if arrays is None else _tokens(Part(**arrays))


def _tokens(part: Part) -> Tokens:
    starts = np.cumsum(part.lengths, dtype=np.int64) - part.lengths
    return Tokens(ids=part.ids, types=part.types, starts=starts, lengths=part.lengths, labels=part.labels)


def _in_memory(parts: Iterable[Part]) -> Tokens:
    return _tokens(Part(*map(np.concatenate, zip(*parts, strict=True))))


def _encode(rows: Iterable[Example], tokenizer: Any, max_length: int) -> Iterator[Part]:
    """At least one part: that of no examples has empty arrays."""
    for batch in _batches(rows):
        pairs = bool(batch) and batch[0].text_pair is not None
        second = [row.text_pair or "" for row in batch] if pairs else None
        out = tokenizer([row.text for row in batch], second, truncation=True, max_length=max_length) if batch else {}
        found, kinds = out.get("input_ids", []), out.get("token_type_ids")
        ids = np.fromiter(chain.from_iterable(found), dtype=np.int32)
        yield Part(
            ids=ids,
            types=np.fromiter(chain.from_iterable(kinds), dtype=np.int8) if kinds else np.zeros_like(ids, np.int8),
            lengths=np.fromiter(map(len, found), dtype=np.int64),
            labels=np.asarray([row.label for row in batch], dtype=np.float64),
        )


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
