"""Images stored as plain arrays: idx files (MNIST and others like it), and CIFAR's binary version.

An idx file is described on the MNIST page (LeCun, Cortes and Burges): two zero bytes, the type (0x08 is uint8), the
number of dimensions, each size as a big-endian 32-bit integer, then the data in C order; it may be gzipped.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.core.files import regular
from tasks.images.reading.source import BadImages, Entry, Listing, Source, Split, hashed_file, sha256_of
from tasks.io.readers import errors_naming, malformed

IDX: dict[str, Split] = {"train": "train", "t10k": "test"}
"""Start of a file's name → split."""
GZIP = b"\x1f\x8b"
LARGEST = 1 << 32
"""Most bytes of an array: a wrong size, or a gzip bomb, takes no more memory than that."""
CIFAR: dict[int, dict[str, Split]] = {
    10: {**{f"data_batch_{i}.bin": "train" for i in range(1, 6)}, "test_batch.bin": "test"},
    100: {"train.bin": "train", "test.bin": "test"},
}
"""Number of classes → files → split."""
CIFAR_BYTES = 3 * 32 * 32
"""Bytes of a CIFAR image: red, green, blue, each row by row."""
Part = tuple[Split, Path, np.ndarray, np.ndarray]
"""Split, the file that images are named after, images (N, H, W) or (N, H, W, 3) and classes (N,)."""


def _source(place: Path, classes: tuple[str, ...], parts: Iterable[Part], files: Iterable[Path]) -> Source:
    hashed = [hashed_file(file) for file in files]
    listing, pixels = Listing([], BadImages()), dict[str, np.ndarray]()
    for split, file, images, labels in parts:
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True), 1):
            name = f"{file.name}, image {number}"
            pixels[name] = image
            if label < len(classes):
                listing.entries.append(Entry(name, split, label))
            else:
                listing.bad.add(name, "its label is none of the task's classes", str(label))

    def read(entries: Sequence[Entry]) -> Iterator[tuple[Entry, np.ndarray]]:
        return ((entry, pixels[entry.name]) for entry in entries)

    return Source(str(place), sha256_of(*(file["sha256"] for file in hashed)), lambda: listing, read, hashed, classes)


def find_idx(folder: Path, classes: tuple[str, ...]) -> Source | None:
    """Read the four idx files of a folder, named as published or as torchvision unpacks them; None if it has none."""
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        names = [f"{start}-{content}-ubyte" for start in IDX for content in ("images-idx3", "labels-idx1")]
        found = {name: _idx_file(place, name) for name in names}
        files = [file for file in found.values() if file]
        if not files:
            continue
        if missing := [name for name, file in found.items() if not file]:
            raise malformed(place, "", f"{missing[0]}[.gz] is missing")
        pairs = zip(IDX.values(), files[::2], files[1::2], strict=True)
        parts: list[Part] = [(split, images, *read_pair(images, labels)) for split, images, labels in pairs]
        return _source(place, classes, parts, files)
    return None


def _idx_file(folder: Path, name: str) -> Path | None:
    """Find `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, with or without `.gz`."""
    names = [f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in (".gz", "")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images (N, H, W) and labels (N,), both uint8, of two idx files; their numbers must be equal."""
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise malformed(labels, "", f"{len(classes)} labels for the {len(pixels)} images of {images.name}")
    return pixels, classes


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Read the uint8 array of an idx file, of just the size that its header says: labels (N,) or images (N, H, W)."""
    with errors_naming(file):
        with regular(file, most=LARGEST).open("rb") as raw:
            packed = raw.read(2) == GZIP
        with gzip.open(file) if packed else file.open("rb") as stream:
            shape = _idx_shape(file, stream.read(4 + 4 * dimensions), dimensions)
            size = math.prod(shape)
            data = stream.read(size + 1)  # no more than that is decompressed
    header = f"its header says {size} ({' × '.join(map(str, shape))})"
    if len(data) < size:
        raise malformed(file, "", f"truncated: {len(data)} bytes of data where {header}")
    if len(data) > size:
        raise malformed(file, "", f"it holds more bytes than that: {header}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _idx_shape(file: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    magic, expected = header[:4], bytes([0, 0, 0x08, dimensions])
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
    """
    files = CIFAR.get(len(classes), {})
    for place in (folder, folder / f"cifar-{len(classes)}-batches-bin", folder / "cifar-100-binary"):
        if any((place / name).is_file() for name in files):
            labels = 2 if len(classes) == 100 else 1
            parts: list[Part] = [(files[name], place / name, *_records(place / name, labels)) for name in files]
            return _source(place, classes, parts, [place / name for name in files])
    return None


def _records(file: Path, labels: int) -> tuple[np.ndarray, np.ndarray]:
    with errors_naming(file):
        data, width = np.frombuffer(regular(file, most=LARGEST).read_bytes(), dtype=np.uint8), labels + CIFAR_BYTES
    if not len(data) or len(data) % width:
        record = f"record {len(data) // width}"
        raise malformed(file, record, f"{len(data)} bytes are no whole number of records of {width} bytes")
    records = data.reshape(-1, width)
    images = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, records[:, labels - 1]
