"""All images of a dataset decoded, ordered by split, and cached with the statistics of the training images."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import PIL

from bench.core.errors import DataProblem
from tasks.images.reading.cache import cached
from tasks.images.reading.decode import BadImageError, Decoder, Mode
from tasks.images.reading.source import BadGroup, BadImages, Entry, Source, Split
from tasks.table.labels import number, split

FORMAT = 2
"""Raised whenever the same sources would be cached otherwise."""
PIXELS, LABELS, FACTS = "pixels.npy", "labels.npy", "facts.json"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How images are prepared.

    Attributes:
        size: as for `Decoder`.
        mode: as for `Decoder`.
        classes: the task's classes in order; empty takes those of train, numbers by value and names by name.
        share: share of train drawn for validation, the same of every class; 0 draws none.
        seed: seed of that draw, and of the draw of `most_train`.
        most_train: if train has more images, this many are drawn, the same share of every class; 0 takes all.
    """

    size: int | None = None
    mode: Mode = "auto"
    classes: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0
    most_train: int = 0


class Facts(TypedDict):
    """What is known of prepared images, as JSON.

    Attributes:
        shape: (H, W, C).
        splits: split → its first row, and the row after its last.
        found: split → images before some of train were drawn.
        bad: reason → `BadGroup`, of `total` images.
        mean: per channel of train, in [0, 1]; so is `std`.
        formats: images of each file format.
    """

    shape: tuple[int, int, int]
    classes: Sequence[str]
    splits: dict[str, tuple[int, int]]
    found: dict[str, int]
    bad: dict[str, BadGroup]
    total: int
    mean: list[float]
    std: list[float]
    formats: dict[str, int]


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """Pixels (N, H, W, C) uint8, memory-mapped, classes (N,) int64, and what is known of them."""

    pixels: np.ndarray
    labels: np.ndarray
    facts: Facts

    @property
    def bad(self) -> BadImages:
        """Images that are left out."""
        return BadImages({reason: BadGroup(*group) for reason, group in self.facts["bad"].items()})

    @classmethod
    def load(cls, folder: Path) -> PreparedImages:
        """Open a folder of the cache."""
        facts: Facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / LABELS, allow_pickle=False)
        if len(pixels) != len(labels):
            raise ValueError("a broken cache")
        return cls(pixels, labels, facts)


def prepare(sources: Sequence[Source], preparation: Preparation) -> PreparedImages:
    """Decode the images of all sources, or load them from the cache.

    Raises:
        DataProblem: a source is broken as a whole, or no image can be used.
    """
    how = preparation
    key = {
        "format": FORMAT,
        "sources": [source.sha256 for source in sources],
        "preparation": [how.size, how.mode, list(how.classes), how.share, how.seed, how.most_train],
        "pillow": PIL.__version__,
    }
    return cached(key, lambda folder: _build(folder, sources, preparation), PreparedImages.load)


def _build(folder: Path, sources: Sequence[Source], preparation: Preparation) -> None:
    bad = BadImages()
    found = [entry for source in sources for entry in source.listing.entries]
    total = len(found) + _add_bad_files(bad, sources)
    classes = preparation.classes or _class_names(found)
    known = [entry for entry in found if _check_class(entry, classes, preparation, bad)]
    entries = _draw_train(known, preparation)

    decoder = Decoder(size=preparation.size, mode=preparation.mode)
    rows = folder / "rows"  # pixels in the order of reading; how many there will be is not known yet
    row_of = _decode(sources, set(entries), decoder, rows, bad)
    if not decoder.shape:
        place = " and ".join(source.place for source in sources)
        bad.check(place, "error")
        raise DataProblem(f"no images in {place}", "it holds no class folder with an image", "Name the folder above.")
    splits = _split([entry for entry in entries if entry in row_of], preparation)
    order = [entry for part in splits.values() for entry in part]
    pixels = np.memmap(rows, dtype=np.uint8, mode="r").reshape(-1, *decoder.shape)
    _write_array(folder / PIXELS, pixels, np.asarray([row_of[entry] for entry in order], dtype=np.int64))
    rows.unlink()
    numbers = {name: index for index, name in enumerate(classes)}
    labels = [entry.label if isinstance(entry.label, int) else numbers[entry.label] for entry in order]
    np.save(folder / LABELS, np.asarray(labels, dtype=np.int64))
    mean, std = channel_statistics(np.load(folder / PIXELS, mmap_mode="r")[: len(splits["train"])])
    ends = np.cumsum([len(part) for part in splits.values()]).tolist()
    facts: Facts = {
        "shape": decoder.shape,
        "classes": classes,
        "splits": {name: (end - len(part), end) for (name, part), end in zip(splits.items(), ends, strict=True)},
        "found": dict(Counter(entry.split for entry in known)),
        "bad": bad.by_reason,
        "total": total,
        "mean": mean,
        "std": std,
        "formats": decoder.formats,
    }
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _add_bad_files(bad: BadImages, sources: Sequence[Source]) -> int:
    """Add what the sources know to be bad; return how many that is."""
    for source in sources:
        for reason, group in source.listing.bad.by_reason.items():
            bad.add(group.where, reason, group.detail, group.number)
        for name in source.listing.empty:
            bad.add(name, "a class folder without an image")
    return len(bad)


def _decode(
    sources: Sequence[Source], chosen: Set[Entry], decoder: Decoder, rows: Path, bad: BadImages
) -> dict[Entry, int]:
    """Write the pixels of the chosen entries to a file; return each one's row. An entry may occur twice."""
    row_of: dict[Entry, int] = {}
    count = 0
    with rows.open("wb") as stream:
        for source in sources:
            for entry, data in source.read([entry for entry in source.listing.entries if entry in chosen]):
                try:
                    stream.write(np.ascontiguousarray(decoder.decode(data)).data)
                except BadImageError as error:
                    bad.add(entry.name, error.reason, error.detail)
                else:
                    row_of[entry] = count
                    count += 1
    return row_of


def _class_names(entries: Sequence[Entry]) -> tuple[str, ...]:
    names = {str(entry.label) for entry in entries if entry.split == "train"}
    if all(number(name) is not None for name in names):
        return tuple(sorted(names, key=lambda name: (number(name) or 0.0, name)))
    return tuple(sorted(names))


def _check_class(entry: Entry, classes: Sequence[str], preparation: Preparation, bad: BadImages) -> bool:
    """Tell whether an entry's class is known, and add it to the bad ones if not."""
    known = entry.label < len(classes) if isinstance(entry.label, int) else entry.label in classes
    if not known:
        owner = "the task" if preparation.classes else "train"
        bad.add(entry.name, f"its class is not one of {owner}'s", str(entry.label))
    return known


def _draw_train(entries: list[Entry], preparation: Preparation) -> list[Entry]:
    train = [entry for entry in entries if entry.split == "train"]
    if not preparation.most_train or len(train) <= preparation.most_train:
        return entries
    _, drawn = _draw(train, preparation.most_train / len(train), preparation.seed)
    chosen = set(drawn)
    return [entry for entry in entries if entry.split != "train" or entry in chosen]


def _split(entries: Sequence[Entry], preparation: Preparation) -> dict[Split, list[Entry]]:
    """Return the entries of every split that has any, in the order of the source."""
    parts = dict[Split, list[Entry]]({name: [entry for entry in entries if entry.split == name] for name in SPLITS})
    if preparation.share and parts["train"]:
        parts["train"], parts["validation"] = _draw(parts["train"], preparation.share, preparation.seed)
    return {name: part for name, part in parts.items() if part or name == "train"}


def _draw(entries: Sequence[Entry], share: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Return the others, and a share drawn of every class."""
    others, drawn = split([str(entry.label) for entry in entries], share, seed=seed, stratify=True)
    return [entries[i] for i in others], [entries[i] for i in drawn]


def _write_array(file: Path, rows: np.ndarray, order: np.ndarray, chunk: int = 256) -> None:
    """Write rows in that order as .npy, a chunk at a time. A memory map would kill the process on a full disk."""
    with file.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(order), *rows.shape[1:])}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(order), chunk):
            stream.write(rows[order[start : start + chunk]].data)
        stream.flush()
        os.fsync(stream.fileno())


def channel_statistics(pixels: np.ndarray, chunk: int = 1024) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel of (N, H, W, C) uint8, in [0, 1]; integer sums make them exact."""
    if not pixels.size:
        return [], []
    counts = np.zeros((pixels.shape[-1], 256), dtype=np.int64)
    for start in range(0, len(pixels), chunk):
        part = np.asarray(pixels[start : start + chunk])
        counts += np.stack([np.bincount(part[..., c].ravel(), minlength=256) for c in range(part.shape[-1])])
    values = np.arange(256, dtype=np.int64)
    n = pixels.size // pixels.shape[-1]
    sums, squares = (counts @ values).tolist(), (counts @ values**2).tolist()
    variance = [(q * n - s**2) / n**2 for s, q in zip(sums, squares, strict=True)]
    return [s / n / 255 for s in sums], [float(np.sqrt(v)) / 255 for v in variance]
