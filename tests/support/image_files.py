"""Small image files for tests: idx files by the format's definition, class folders, tars of them."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, size: tuple[int, int] = (6, 6), channels: int = 3) -> np.ndarray:
    """Random pixels (H, W, 3), or (H, W) for one channel."""
    shape = (*size, channels) if channels > 1 else size
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_idx(file: Path, array: np.ndarray, *, magic: bytes | None = None) -> Path:
    """The magic number, sizes as big-endian 32-bit integers, the bytes; packed where the name ends in .gz."""
    head = magic or bytes([0, 0, 8, array.ndim])
    data = head + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def write_mnist(folder: Path, train: int = 20, test: int = 10, end: str = ".gz") -> Path:
    """Four files; labels count up, so that each class is there."""
    for prefix, count, seed in (("train", train, 0), ("t10k", test, 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{end}", pixels)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{end}", np.arange(count) % 10)
    return folder


def tree(classes: tuple[str, ...] = ("cat", "dog"), splits: tuple[str, ...] = ("train", "test"), count: int = 3):
    """Name → PNG, `train/cat/0.png` and so on; without splits `cat/0.png`."""
    places = [f"{split}/{name}" for split in splits for name in classes] if splits else list(classes)
    return {f"{place}/{i}.png": encoded(noise(100 * j + i)) for j, place in enumerate(places) for i in range(count)}


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(file: Path, files: dict[str, bytes], mode: str = "w:xz") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file
