"""Tokens in a safetensors file, written a part at a time and mapped into memory, never read as a whole."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

COLUMNS = {"lengths": ("I64", "<i8"), "labels": ("F64", "<f8"), "ids": ("I32", "<i4"), "types": ("I8", "<i1")}
"""Arrays in the file's order, which keeps each aligned: name in the header, name in numpy."""


def write(parts: Iterable[Sequence[np.ndarray]], file: Path) -> None:
    """Write arrays that come in parts, whole or not at all.

    Args:
        parts: named tuples whose fields are those of COLUMNS, each one-dimensional.
        file: the file.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # sizes are known at the end only, so each column has a file of its own until then
        columns = {name: stack.enter_context(tempfile.TemporaryFile(dir=file.parent)) for name in COLUMNS}
        for part in parts:
            for name, (_, dtype) in COLUMNS.items():
                columns[name].write(np.ascontiguousarray(getattr(part, name), dtype=dtype).tobytes())
        target = stack.enter_context(tempfile.NamedTemporaryFile(dir=file.parent, delete=False))
        try:
            target.write(_header({name: column.tell() for name, column in columns.items()}))
            for column in columns.values():
                column.seek(0)
                shutil.copyfileobj(column, target, 1 << 20)
            target.flush()
            os.replace(target.name, file)  # noqa: PTH105 - the name is a string
        except BaseException:
            with suppress(OSError):
                Path(target.name).unlink()
            raise


def read(file: Path) -> dict[str, np.ndarray] | None:
    """The arrays, mapped; None where there is no such file, or it is broken or another kind of file."""
    try:
        with safe_open(file, framework="numpy") as opened:  # checks header, offsets and size
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        if set(shapes) != set(COLUMNS):
            return None
        return {name: _map(file, 8 + size, header[name], *COLUMNS[name]) for name in COLUMNS}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _header(sizes: dict[str, int]) -> bytes:
    header: dict[str, object] = {}
    start = 0
    for name, size in sizes.items():
        kind, dtype = COLUMNS[name]
        header[name] = {
            "dtype": kind,
            "shape": [size // np.dtype(dtype).itemsize],
            "data_offsets": [start, start + size],
        }
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _map(file: Path, data: int, entry: dict[str, Any], kind: str, dtype: str) -> np.ndarray:
    if entry["dtype"] != kind:
        raise ValueError(f"{file}: not as it was written")
    shape = tuple(entry["shape"])
    if not math.prod(shape):
        return np.zeros(shape, dtype=dtype)  # an empty part of a file cannot be mapped
    return np.memmap(file, dtype=dtype, mode="r", offset=data + entry["data_offsets"][0], shape=shape)
