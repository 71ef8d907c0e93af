"""Tokenised examples as flat arrays, cached on disk by the hash of data, tokenizer and length."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bench.data import Example

CHUNK = 4096
"""Texts per call of the tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of N examples end to end.

    Attributes:
        ids, types: token and segment ids (total,).
        offsets: example i is [offsets[i], offsets[i + 1]) (N + 1,).
        labels: (N,) float64; class indices are exact in it.
    """

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per example (N,)."""
        return np.diff(self.offsets)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and segments of one example."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.ids[part], self.types[part]

    def take(self, index: np.ndarray) -> Tokens:
        """Some of the examples, in this order."""
        if np.array_equal(index, np.arange(len(self.labels))):
            return self
        lengths = self.lengths[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Tokens(ids=self.ids[where], types=self.types[where], offsets=offsets, labels=self.labels[index])


def tokenise(rows: Sequence[Example], tokenizer: Any, *, key: str, max_length: int) -> Tokens:
    """Tokenise, or read what an earlier run left in the cache.

    Args:
        rows: the examples.
        tokenizer: a fast tokenizer of transformers.
        key: identifies data, split and tokenizer by content.
        max_length: longer examples are cut.
    """
    name = hashlib.sha256(f"2{key}{max_length}".encode()).hexdigest()
    file = cache_folder() / "tokens" / f"{name}.safetensors"
    try:
        return Tokens(**load_file(file))
    except (OSError, SafetensorError, TypeError):
        tokens = _encode(rows, tokenizer, max_length)
    _save(tokens, file)
    return tokens


def cache_folder() -> Path:
    """`LOWRANK_BENCH_CACHE`, or `lowrank-bench` in the user's cache folder."""
    chosen = os.environ.get("LOWRANK_BENCH_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lowrank-bench"


def _encode(rows: Sequence[Example], tokenizer: Any, max_length: int) -> Tokens:
    ids: list[np.ndarray] = []  # an array per call: lists of Python's integers take ten times the memory
    types: list[np.ndarray] = []
    lengths = [0]
    pairs = bool(rows) and rows[0].text_pair is not None
    for i in range(0, len(rows), CHUNK):
        part = rows[i : i + CHUNK]
        second = [row.text_pair or "" for row in part] if pairs else None
        out = tokenizer([row.text for row in part], second, truncation=True, max_length=max_length)
        lengths += map(len, out["input_ids"])
        ids.append(np.fromiter(chain.from_iterable(out["input_ids"]), dtype=np.int32))
        kinds = out.get("token_type_ids")
        types.append(
            np.fromiter(chain.from_iterable(kinds), dtype=np.int8) if kinds else np.zeros_like(ids[-1], np.int8)
        )
    return Tokens(
        ids=np.concatenate(ids),
        types=np.concatenate(types),
        offsets=np.cumsum(lengths, dtype=np.int64),
        labels=np.asarray([row.label for row in rows], dtype=np.float64),
    )


def _save(tokens: Tokens, file: Path) -> None:
    """Atomically; a cache that cannot be written is no reason to stop."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
            pass
        save_file(
            {n: np.ascontiguousarray(getattr(tokens, n)) for n in ("ids", "types", "offsets", "labels")}, temporary.name
        )
        os.replace(temporary.name, file)  # noqa: PTH105 - the name is a string
    except OSError:
        return
