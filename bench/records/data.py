"""The loaded data of a task, before any tensor: examples by split, where they come from, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from bench.config.options import Config

if TYPE_CHECKING:
    import numpy as np

C = TypeVar("C", bound=Config)
SourceKind = Literal["directory", "hub", "embedded", "file"]


class Example(NamedTuple):
    """A labelled text or pair of texts. `label` is a class index, a number, or 0 or 1 for each of several classes."""

    text: str
    text_pair: str | None
    label: int | float | tuple[int, ...]


@runtime_checkable
class Hashed(Sized, Protocol):
    """Rows that compute a digest of their content, because they are too many to be written out as JSON."""

    def digest(self) -> bytes:
        """Return the same bytes for the same content."""
        ...


Rows = Sequence[Example] | Hashed
"""Examples of a split."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Examples as arrays, which may be memory-mapped.

    Attributes:
        inputs: images (N, H, W, C) uint8, or vectors (N, n) float32.
        targets: classes (N,) int64, or numbers (N, k) float32, where NaN is a number that was not observed.
    """

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def digest(self) -> bytes:
        """Return the sha256 of type, shape and bytes of both arrays."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            for start in range(0, len(array), 4096):  # in parts: a memory-mapped array may be larger than memory
                digest.update(array[start : start + 4096].tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """Which source the user wants.

    Attributes:
        data: `auto` takes the first source that is available, in the order directory, hub, embedded.
        dirs: `(name, directory)` from `--data-dir`; name is a task or suite (`glue`, `glue/cola`), or None for all.
        parent: the folder of `BENCH_DATA`, a parent that holds a folder per suite, or None.
        config: the task's options, `--set task.key=value`; None: the defaults.
    """

    data: Literal["auto", "dir", "hub", "embedded"] = "auto"
    dirs: tuple[tuple[str | None, Path], ...] = ()
    parent: Path | None = None
    config: Config | None = None
    on_bad: Literal["error", "skip"] = "error"

    def config_as(self, kind: type[C]) -> C:
        """Return the options as the class that the task declares, with its defaults where none were given."""
        config = kind() if self.config is None else self.config
        assert isinstance(config, kind), f"the request has {type(config).__name__}"
        return config


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The labelled splits of one task from one source.

    Attributes:
        evaluation: evaluation splits by name (`dev`; `dev_matched` and `dev_mismatched` for MNLI); the first one
            carries the primary metric.
        revision: the hub revision, the generator's version, or the name of the folder or file (never its path).
        notes: lines the user must see, such as 'no network; fell back to embedded'.
        warnings: lines a reader of the score must see too: the user sees them, and the record of every run has them.
        reading: how it was read, for the record. Options of the task that are named here only decide what the examples
            are, which `hash` covers, so they are no part of a RunSpec.
        version: hash of the files, where a changed file counts as other data even if no example changed.
    """

    train: Rows
    evaluation: Mapping[str, Rows]
    source: SourceKind
    revision: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict[str, Any])
    version: str = ""

    @cached_property
    def hash(self) -> str:
        """sha256 of source, version and every example in order."""
        digest = hashlib.sha256((self.source + self.version).encode())
        for name, rows in (("train", self.train), *self.evaluation.items()):
            digest.update(f"\x00{name}\x00{len(rows)}\x00".encode())
            if isinstance(rows, Hashed):
                digest.update(rows.digest())
            else:
                for row in rows:
                    digest.update(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode())
        return digest.hexdigest()
