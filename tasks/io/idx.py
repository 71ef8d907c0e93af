"""idx files, the format of MNIST and its kin: a magic number, the sizes, then bytes in C order; gzipped or not.

The format is described on the MNIST page (LeCun, Cortes and Burges): two zero bytes, the type (0x08 is uint8), the
number of dimensions, and each size as a big-endian 32-bit integer.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np

from bench.core.errors import DataProblem

UINT8 = 0x08
GZIP = b"\x1f\x8b"
LARGEST = 1 << 32
"""Bytes of the largest array that is read: a wrong size, or a gzip bomb, asks for no more memory than that."""


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of a file: labels (N,) or pictures (N, H, W).

    Raises:
        DataProblem: it cannot be read, is no such file, or holds fewer or more bytes than it says.
    """
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == GZIP
        with gzip.open(file) if packed else file.open("rb") as stream:
            head = stream.read(4 + 4 * dimensions)
            shape = _shape(file, head, dimensions)
            size = math.prod(shape)
            body = stream.read(size)  # of a gzipped file no more than that is unpacked
            more = stream.read(1)
    except (OSError, EOFError, zlib.error) as error:
        bad(file, f"cannot be read ({getattr(error, 'strerror', None) or error})")
    if len(body) != size:
        bad(file, f"truncated: {len(body)} bytes of data where its head says {size} ({' × '.join(map(str, shape))})")
    if more:
        bad(file, f"it holds more than the {size} bytes that its head says ({' × '.join(map(str, shape))})")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, H, W) and their labels (N,), both uint8.

    Raises:
        DataProblem: as `read_idx`; or there are more of the one than of the other.
    """
    pictures, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pictures) != len(classes):
        bad(labels, f"{len(classes)} labels for the {len(pictures)} images of {images.name}")
    return pictures, classes


def bad(file: Path, problem: str, where: str = "") -> NoReturn:
    """Raise the error for a broken file, or for one place in it.

    Raises:
        DataProblem: always.
    """
    place = f"{file}, {where}" if where else f"{file}"
    todo = "Mend or fetch the file again, or give another directory with --data-dir."
    raise DataProblem(f"malformed data in {file.name}: {problem}", f"file: {place}", todo)


def _shape(file: Path, head: bytes, dimensions: int) -> tuple[int, ...]:
    magic, wanted = head[:4], bytes([0, 0, UINT8, dimensions])
    if magic != wanted:
        bad(file, f"wrong magic number: expected {wanted.hex()}, found {magic.hex() or 'nothing'}")
    if len(head) < 4 + 4 * dimensions:
        bad(file, "truncated within its head")
    shape = struct.unpack(f">{dimensions}I", head[4:])
    if not all(shape) or math.prod(shape) > LARGEST:
        bad(file, f"sizes that cannot be: {' × '.join(map(str, shape))}")
    return shape
