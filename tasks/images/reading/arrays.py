"""Images stored as plain arrays: idx files (MNIST and others like it), and CIFAR's binary version.

An idx file is described on the MNIST page (LeCun, Cortes and Burges): two zero bytes, the type (0x08 is uint8), the
number of dimensions, each size as a big-endian 32-bit integer, then the data in C order; it may be gzipped.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, hashed_file, read_bytes, sha256_of
from tasks.io.readers import malformed

UINT8 = 0x08
GZIP = b"\x1f\x8b"
LARGEST = 1 << 32
"""Most bytes of an array: a wrong size, or a gzip bomb, takes no more memory than that."""
CIFAR_BYTES = 3 * 32 * 32
"""Bytes of a CIFAR image: red, green, blue, each row by row."""


class _Part(NamedTuple):
    """Images (N, H, W) or (N, H, W, 3) and classes (N,) of one file or pair of files, named after `file`."""

    split: Split
    file: Path
    images: np.ndarray
    labels: np.ndarray


def _source(place: Path, classes: tuple[str, ...], parts: Sequence[_Part], files: Sequence[Path]) -> Source:
    """Return the images of all parts, in the order of the files."""
    hashed = [hashed_file(file) for file in files]
    found = Listing(entries=[], bad=BadImages())
    for part in parts:
        for number, (image, label) in enumerate(zip(part.images, part.labels.tolist(), strict=True), 1):
            name = f"{part.file.name}, image {number}"
            if label < len(classes):
                found.entries.append(Entry(name=name, split=part.split, label=label, content=image))
            else:
                found.bad.add(name, "its label is none of the task's classes", str(label))
    return Source(str(place), sha256_of(*(file["sha256"] for file in hashed)), lambda: found, hashed, classes)


def find_idx(folder: Path, classes: tuple[str, ...]) -> Source | None:
    """Read the four idx files of a folder, named as published or as torchvision unpacks them; None if it has none.

    Raises:
        DataProblem: a file is missing or broken.
    """
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        pairs = {name: (_idx_file(place, name, "images", 3), _idx_file(place, name, "labels", 1)) for name in IDX}
        if not any(file for pair in pairs.values() for file in pair):
            continue
        parts: list[_Part] = []
        for name, (images, labels) in pairs.items():
            if not images or not labels:
                missing = f"{name}-{'labels-idx1' if images else 'images-idx3'}-ubyte[.gz]"
                raise malformed(place, "", f"{missing} is missing")
            parts.append(_Part(IDX[name], images, *read_pair(images, labels)))
        return _source(place, classes, parts, [file for pair in pairs.values() for file in pair if file])
    return None


IDX: dict[str, Split] = {"train": "train", "t10k": "test"}
"""Start of a file's name → split."""


def _idx_file(folder: Path, start: str, content: str, dimensions: int) -> Path | None:
    """Find `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, with or without `.gz`."""
    names = [f"{start}-{content}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in (".gz", "")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (N, H, W) and labels (N,), both uint8, of two idx files.

    Raises:
        DataProblem: as for `read_idx`, or their numbers differ.
    """
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise malformed(labels, "", f"{len(classes)} labels for the {len(pixels)} images of {images.name}")
    return pixels, classes


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Read the uint8 array of an idx file: labels (N,) or images (N, H, W).

    Raises:
        DataProblem: it cannot be read, is not an idx file, or holds fewer or more bytes than its header says.
    """
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == GZIP
        with gzip.open(file) if packed else file.open("rb") as stream:
            shape = _idx_shape(file, stream.read(4 + 4 * dimensions), dimensions)
            size = math.prod(shape)
            data = stream.read(size)  # no more than that is decompressed
            more = stream.read(1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise malformed(file, "", f"cannot be read ({reason})") from error
    header = f"its header says {size} ({' × '.join(map(str, shape))})"
    if len(data) != size:
        raise malformed(file, "", f"truncated: {len(data)} bytes of data where {header}")
    if more:
        raise malformed(file, "", f"it holds more bytes than that: {header}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _idx_shape(file: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    magic, expected = header[:4], bytes([0, 0, UINT8, dimensions])
    if magic != expected:
        raise malformed(file, "", f"wrong magic number: expected {expected.hex()}, found {magic.hex() or 'nothing'}")
    if len(header) < 4 + 4 * dimensions:
        raise malformed(file, "", "truncated within its header")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if not all(shape) or math.prod(shape) > LARGEST:
        raise malformed(file, "", f"impossible sizes: {' × '.join(map(str, shape))}")
    return shape


def find_cifar(folder: Path, classes: tuple[str, ...]) -> Source | None:
    """Read the files of CIFAR's binary version, here or in the folder of its archive; None if it has none.

    A record is the label (in CIFAR-100 the coarse label, then the label) and the image.

    Raises:
        DataProblem: a file is missing or broken.
    """
    fine = len(classes) == 100
    train, test = [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"
    if fine:
        train, test = ["train.bin"], "test.bin"
    files: dict[str, Split] = {**dict.fromkeys(train, "train"), test: "test"}
    for place in (folder, folder / f"cifar-{len(classes)}-batches-bin", folder / "cifar-100-binary"):
        if any((place / name).is_file() for name in files):
            parts = [
                _Part(split, place / name, *_cifar_records(place / name, 2 if fine else 1))
                for name, split in files.items()
            ]
            return _source(place, classes, parts, [part.file for part in parts])
    return None


def _cifar_records(file: Path, labels: int) -> tuple[np.ndarray, np.ndarray]:
    data, width = np.frombuffer(read_bytes(file), dtype=np.uint8), labels + CIFAR_BYTES
    if not len(data) or len(data) % width:
        record = f"record {len(data) // width}"
        raise malformed(file, record, f"{len(data)} bytes are no whole number of records of {width} bytes")
    records = data.reshape(-1, width)
    return records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, labels - 1]
