"""Pictures of a source decoded, put in order and split, with the mean and deviation of those trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from bench.core.errors import DataProblem
from tasks.images.cache import FACTS, LABELS, PIXELS, Appender, Store, stored
from tasks.images.decode import Decoder, Mode, Unusable
from tasks.images.files import Source
from tasks.images.names import Entry
from tasks.images.rejects import Rejects
from tasks.table.labels import number, split


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What pictures are to become.

    Attributes:
        size, mode: as in `Decoder`.
        classes: the task's own, in order; empty takes what train holds, numbers by value, names by name.
        share: of train, drawn for validation, of every class alike; 0 draws none.
        seed: draws the share, and the `most`.
        most: pictures of train; of more, so many are drawn, of every class alike; 0 takes all.
    """

    size: int | None = None
    mode: Mode = "auto"
    classes: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0
    most: int = 0


def prepare(sources: Sequence[Source], wish: Wish) -> Store:
    """Pictures of all sources in one store.

    Its facts: `shape` (H, W, C), `classes`, `splits` (name → [first, behind the last]), `found` (name → pictures before
    some were drawn), `left_out` (`Rejects`) of `total`, `mean` and `std` per channel of train in [0, 1], `formats`.

    Raises:
        DataProblem: a source is broken as a whole, or no picture can be used.
    """
    key = {
        "sources": [source.sha256 for source in sources],
        "wish": [wish.size, wish.mode, list(wish.classes), wish.share, wish.seed, wish.most],
        "pillow": PIL.__version__,
    }
    return stored(key, lambda folder: _build(folder, sources, wish))


def _build(folder: Path, sources: Sequence[Source], wish: Wish) -> None:
    rejects = Rejects()
    listings = [source.listing() for source in sources]
    for listing in listings:
        for reason, (count, where, detail) in listing.rejects.by_reason.items():
            rejects.add(where, reason, detail, times=count)
        for name in listing.empty:
            rejects.add(name, "a class folder without an image")
    found = [(source, entry) for source, listing in zip(sources, listings, strict=True) for entry in listing.entries]
    total = len(found) + len(rejects)
    classes = wish.classes or _classes([entry for _, entry in found])
    reason = f"its class is not one of {'the task' if wish.classes else 'train'}'s"
    found = [pair for pair in found if _known(pair[1], classes, reason, rejects)]
    whole = Counter(entry.split for _, entry in found)
    found = _fewer(found, wish)
    decoder, pixels = Decoder(size=wish.size, mode=wish.mode), Appender(folder / "rows")
    rows: list[tuple[int, Entry]] = []  # position in `found`, in the order of the file of rows
    for source in sources:
        mine = [(position, entry) for position, (owner, entry) in enumerate(found) if owner is source]
        for index, data in source.read([entry for _, entry in mine]):
            position, entry = mine[index]
            try:
                pixels.add(decoder.decode(data))
            except Unusable as error:
                rejects.add(entry.name, error.reason, error.detail)
            else:
                rows.append((position, entry))
    if not rows:
        place = " and ".join(source.place for source in sources)
        rejects.check(place, "error")
        raise DataProblem(f"no images in {place}", "it holds no class folder with an image", "Name the folder above.")
    about = {"classes": classes, "total": total, "found": whole, "left_out": rejects.to_json()}
    _finish(folder, pixels, rows, decoder, wish, about)


def _finish(
    folder: Path,
    pixels: Appender,
    rows: list[tuple[int, Entry]],
    decoder: Decoder,
    wish: Wish,
    about: dict[str, Any],
) -> None:
    classes: tuple[str, ...] = about["classes"]
    assert decoder.shape
    shape = decoder.shape
    splits, order = _order(rows, wish)
    pixels.write(folder / PIXELS, shape, order)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = [entry.label if isinstance(entry.label, int) else numbers[entry.label] for _, entry in rows]
    np.save(folder / LABELS, np.asarray(labels, dtype=np.int64)[order])
    train = np.load(folder / PIXELS, mmap_mode="r")[: splits["train"][1]]
    mean, std = channels(train)
    facts = {**about, "shape": shape, "splits": splits, "mean": mean, "std": std, "formats": decoder.formats}
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def channels(pixels: np.ndarray, chunk: int = 1024) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of (N, H, W, C) uint8, in [0, 1]; sums are whole numbers, exact."""
    if not pixels.size:
        return [], []
    sums = np.zeros(pixels.shape[-1], dtype=np.int64)
    squares = np.zeros_like(sums)
    values = np.arange(256, dtype=np.int64)
    for start in range(0, len(pixels), chunk):
        part = np.asarray(pixels[start : start + chunk])
        for channel in range(part.shape[-1]):
            counts = np.bincount(part[..., channel].ravel(), minlength=256)
            sums[channel] += counts @ values
            squares[channel] += counts @ values**2
    count = pixels.size // pixels.shape[-1]
    variance = [(int(q) * count - int(s) ** 2) / count**2 for s, q in zip(sums, squares, strict=True)]
    return [int(s) / count / 255 for s in sums], [float(np.sqrt(v)) / 255 for v in variance]


def _classes(entries: Sequence[Entry]) -> tuple[str, ...]:
    names = {str(entry.label) for entry in entries if entry.split == "train"}
    if all(number(name) is not None for name in names):
        return tuple(sorted(names, key=lambda name: (number(name) or 0.0, name)))
    return tuple(sorted(names))


def _known(entry: Entry, classes: tuple[str, ...], reason: str, rejects: Rejects) -> bool:
    known = entry.label < len(classes) if isinstance(entry.label, int) else entry.label in classes
    if not known:
        rejects.add(entry.name, reason, str(entry.label))
    return known


def _fewer(found: list[tuple[Source, Entry]], wish: Wish) -> list[tuple[Source, Entry]]:
    train = [position for position, (_, entry) in enumerate(found) if entry.split == "train"]
    if not wish.most or len(train) <= wish.most:
        return found
    labels = [str(found[position][1].label) for position in train]
    _, held = split(labels, wish.most / len(train), seed=wish.seed, stratify=True)
    keep = {train[index] for index in held}
    return [pair for position, pair in enumerate(found) if pair[1].split != "train" or position in keep]


def _order(rows: list[tuple[int, Entry]], wish: Wish) -> tuple[dict[str, list[int]], np.ndarray]:
    """Where each split begins and ends, and the rows in that order; within a split, in the order of the source."""
    by_split: dict[str, list[int]] = {"train": []}
    for row in sorted(range(len(rows)), key=lambda row: rows[row][0]):
        by_split.setdefault(rows[row][1].split, []).append(row)
    if wish.share and by_split["train"]:
        train = by_split["train"]
        labels = [str(rows[row][1].label) for row in train]
        kept, held = split(labels, wish.share, seed=wish.seed, stratify=True)
        by_split |= {"train": [train[i] for i in kept], "validation": [train[i] for i in held]}
    splits: dict[str, list[int]] = {}
    order: list[int] = []
    for name in ("train", "validation", "test"):
        if by_split.get(name) or name == "train":
            splits[name] = [len(order), len(order) + len(by_split[name])]
            order += by_split[name]
    return splits, np.asarray(order, dtype=np.int64)
