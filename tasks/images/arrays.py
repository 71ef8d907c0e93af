"""Pictures that a file holds as plain arrays: idx files, and the binary version of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tasks.images.names import Entry, Listing
from tasks.images.rejects import Rejects
from tasks.io.idx import bad, read_pair

PICTURE = 3 * 32 * 32
"""Bytes of a CIFAR picture: red, green, blue, each row by row."""


class _Part:
    """One split: pictures (N, H, W) or (N, H, W, 3), classes (N,), and the file they are named after."""

    def __init__(self, split: str, file: Path, pictures: np.ndarray, labels: np.ndarray) -> None:
        self.split, self.file, self.pictures, self.labels = split, file, pictures, labels


class Plain:
    """Pictures and labels of files that are read whole."""

    def __init__(self, place: Path, classes: tuple[str, ...], parts: Sequence[_Part], files: Sequence[Path]) -> None:
        self.place, self.classes, self._parts = str(place), classes, parts
        self.files = [{"name": f.name, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in files]
        self.sha256 = hashlib.sha256("".join(file["sha256"] for file in self.files).encode()).hexdigest()

    def listing(self) -> Listing:
        """Every picture, in the order of the files."""
        entries: list[Entry] = []
        rejects = Rejects()
        for part in self._parts:
            for number, label in enumerate(part.labels.tolist(), 1):
                name = f"{part.file.name}, image {number}"
                if label < len(self.classes):
                    entries.append(Entry(name=name, split=part.split, label=label, key=len(entries) + len(rejects)))
                else:
                    rejects.add(name, "its label is none of the task's classes", str(label))
        return Listing(entries=entries, rejects=rejects)

    def read(self, entries: Sequence[Entry]) -> Iterator[tuple[int, np.ndarray]]:
        """In the order given."""
        rows = [picture for part in self._parts for picture in part.pictures]
        for position, entry in enumerate(entries):
            yield position, rows[int(entry.key)]


def find_idx(folder: Path, classes: tuple[str, ...]) -> Plain | None:
    """MNIST's four files, as they are published or as torchvision unpacks them; None if there is not one of them.

    Raises:
        DataProblem: one is missing or broken.
    """
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        named = [[_one(place, f"{split}-{what}", dims) for what, dims in IDX] for split in ("train", "t10k")]
        if not any(file for pair in named for file in pair):
            continue
        parts: list[_Part] = []
        for split, pair in zip(("train", "test"), named, strict=True):
            images, labels = pair
            if not images or not labels:
                prefix = "train" if split == "train" else "t10k"
                bad(place, f"{prefix}-{'labels-idx1' if images else 'images-idx3'}-ubyte[.gz] is missing")
            parts.append(_Part(split, images, *read_pair(images, labels)))
        return Plain(place, classes, parts, [file for pair in named for file in pair if file])
    return None


IDX = (("images", 3), ("labels", 1))


def _one(folder: Path, start: str, dimensions: int) -> Path | None:
    """`train-images-idx3-ubyte`, `train-images.idx3-ubyte`, either with `.gz`."""
    names = [f"{start}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in (".gz", "")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def find_cifar(folder: Path, classes: tuple[str, ...]) -> Plain | None:
    """The binary version's files, here or in the folder of its archive; None if there is not one of them.

    A record is the label, in CIFAR-100 the coarse label and the label, and the picture.

    Raises:
        DataProblem: one is missing or broken.
    """
    many = len(classes) == 100
    names = {"train": ["train.bin"] if many else [f"data_batch_{i}.bin" for i in range(1, 6)]}
    names["test"] = ["test.bin"] if many else ["test_batch.bin"]
    for place in (folder, folder / f"cifar-{len(classes)}-batches-bin", folder / "cifar-100-binary"):
        if not any((place / name).is_file() for part in names.values() for name in part):
            continue
        parts = [
            _Part(split, place / name, *_records(place / name, 2 if many else 1))
            for split, part in names.items()
            for name in part
        ]
        return Plain(place, classes, parts, [place / name for part in names.values() for name in part])
    return None


def _records(file: Path, labels: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        data = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        bad(file, f"cannot be read ({error.strerror or error})")
    width = labels + PICTURE
    if not len(data) or len(data) % width:
        bad(file, f"{len(data)} bytes are no whole number of records of {width} bytes", f"record {len(data) // width}")
    records = data.reshape(-1, width)
    return records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, labels - 1]
