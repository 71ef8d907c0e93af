"""Decoded pictures on disk, memory-mapped: made once, under the hash of what they are made of.

A folder of the cache is complete or not there. Whoever finds it missing makes it under another name and renames it;
where two do so at once, the second takes what the first has made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench.core.errors import DataProblem
from tasks.text.tokens import cache_folder

FORMAT = 1
"""Raised whenever the same sources would be kept otherwise."""
PIXELS, LABELS, FACTS = "pixels.npy", "labels.npy", "facts.json"


class Store:
    """Pictures (N, H, W, C) uint8, memory-mapped, their classes (N,) int64, and what else is known of them (JSON)."""

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        self.pixels: np.ndarray = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
        self.labels: np.ndarray = np.load(folder / LABELS, allow_pickle=False)
        if len(self.pixels) != len(self.labels):
            raise ValueError("a broken cache")


def stored(key: Mapping[str, Any], build: Callable[[Path], None]) -> Store:
    """What `build` writes into the folder it is given, or wrote there earlier.

    Raises:
        DataProblem: there is no room for it.
    """
    name = hashlib.sha256(json.dumps({**key, "format": FORMAT}, sort_keys=True).encode()).hexdigest()
    folder = cache_folder() / "images" / name
    if found := _open(folder):
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f"{name[:16]}.", dir=folder.parent))
    except OSError as error:
        known = f"{folder.parent}: {error.strerror or error}"
        todo = "Set LOWRANK_BENCH_CACHE to a folder that can be written."
        raise DataProblem("decoded images cannot be kept", known, todo) from error
    try:
        build(making)
        return _publish(making, folder)
    except OSError as error:
        known = f"{folder.parent}: {error.strerror or error}"
        todo = "Make room there, or set LOWRANK_BENCH_CACHE to another folder."
        raise DataProblem("decoded images cannot be kept", known, todo) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _open(folder: Path) -> Store | None:
    try:
        return Store(folder)
    except (OSError, ValueError, EOFError):  # not there, or cut short by a full disk or a crash
        return None


def _publish(making: Path, folder: Path) -> Store:
    for _ in range(3):
        try:
            making.rename(folder)
        except OSError:
            if found := _open(folder):  # another process was faster
                return found
            shutil.rmtree(folder, ignore_errors=True)
        else:
            return Store(folder)
    return Store(making)  # what is open stays readable when its name is gone


class Appender:
    """Rows of bytes end to end in a file, before it is known how many there are."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.stream: BinaryIO = file.open("wb")
        self.count = 0

    def add(self, pixels: np.ndarray) -> None:
        """One more row."""
        self.stream.write(np.ascontiguousarray(pixels).data)
        self.count += 1

    def write(self, target: Path, shape: tuple[int, ...], order: np.ndarray, chunk: int = 256) -> None:
        """The rows in that order as one .npy of rows of that shape; a part at a time is in memory."""
        self.stream.close()
        rows = np.memmap(self.file, dtype=np.uint8, mode="r", shape=(self.count, *shape))
        with target.open("wb") as stream:
            head = {"descr": "|u1", "fortran_order": False, "shape": (len(order), *shape)}
            np.lib.format.write_array_header_1_0(stream, head)
            for start in range(0, len(order), chunk):
                stream.write(rows[order[start : start + chunk]].data)
            stream.flush()
            os.fsync(stream.fileno())
        self.file.unlink()
