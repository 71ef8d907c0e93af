"""All images of a dataset decoded, ordered by split, and cached with what is known of them.

The cache has a folder for each dataset, named by the hash of what it is built from. Each file in it appears whole, and
processes that build it at once write the same content.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL

from bench.core.errors import DataProblem
from bench.core.files import cache_folder, replacing, write_atomic
from tasks.images.reading.decode import BadImageError, Decoder, Mode
from tasks.images.reading.source import BadGroup, BadImages, Entry, Source, Split, sha256_of
from tasks.table.labels import sort_classes, split

FORMAT = 4
"""Raised whenever the same sources would be cached otherwise."""
PIXELS, LABELS, FACTS = "pixels.npy", "labels.npy", "facts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How images are prepared.

    Attributes:
        size, mode: as for `Decoder`.
        classes: the task's classes in order; empty takes those of train, numbers by value and names by name.
        share: drawn from train for validation, the same of every class; 0 draws none.
        most_train: if train has more images, this many are drawn, the same share of every class; 0 takes all.
        seed: of these draws.
    """

    size: int | None = None
    mode: Mode = "auto"
    classes: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0
    most_train: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedImages:
    """Pixels (N, H, W, C) uint8, memory-mapped, and labels (N,) int64 in the order of the splits, and facts of them.

    Attributes:
        sizes: number of images in every split that has any, in order.
        found: images of train before some of them were drawn.
        bad: those that are left out, of `total` images.
        mean, std: per channel of train, in [0, 1].
        formats: number of images of each file format.
        also_in_train: number of images in every other split whose pixels an image of train has too.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    sizes: Mapping[Split, int]
    found: int
    bad: BadImages
    total: int
    mean: Sequence[float]
    std: Sequence[float]
    formats: Mapping[str, int]
    also_in_train: Mapping[Split, int]


def prepare(sources: Sequence[Source], preparation: Preparation) -> PreparedImages:
    """Decode the images of all sources, or load them from the cache."""
    key = {
        "format": FORMAT,
        "sources": [source.sha256 for source in sources],
        "preparation": asdict(preparation),
        "pillow": PIL.__version__,
    }
    folder = cache_folder() / "images" / sha256_of(json.dumps(key, sort_keys=True))
    with suppress(OSError, ValueError, EOFError):  # absent, or cut short by a full disk or a crash
        return _load(folder)
    try:
        _build(folder, sources, preparation)
        return _load(folder)
    except OSError as error:
        known = f"{folder.parent}: {error.strerror or error}"
        todo = "Free some space, or set LOWRANK_BENCH_CACHE to a folder that can be written."
        raise DataProblem("decoded images cannot be cached", known, todo) from error


def _load(folder: Path) -> PreparedImages:
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    bad = BadImages({reason: BadGroup(*group) for reason, group in facts.pop("bad").items()})
    pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / LABELS, allow_pickle=False)
    return PreparedImages(pixels=pixels, labels=labels, bad=bad, **facts)


def _build(folder: Path, sources: Sequence[Source], preparation: Preparation) -> None:
    entries, bad = list[Entry](), BadImages()
    for listing in (source.listing() for source in sources):
        entries += listing.entries
        for reason, group in listing.bad.by_reason.items():
            bad.add(group.where, reason, group.detail, group.number)
        for name in listing.empty:
            bad.add(name, "a class folder without an image")
    total = len(entries) + len(bad)
    classes = preparation.classes or sort_classes({str(e.label) for e in entries if e.split == "train"})
    number_of = {key: index for index, name in enumerate(classes) for key in (index, name)}
    parts: dict[Split, list[Entry]] = {"train": [], "validation": [], "test": []}
    for entry in entries:
        if entry.label in number_of:
            parts[entry.split].append(entry)
        else:
            owner = "the task" if preparation.classes else "train"
            bad.add(entry.name, f"its class is not one of {owner}'s", str(entry.label))
    found = len(parts["train"])
    if 0 < preparation.most_train < found:
        _, parts["train"] = _draw(parts["train"], preparation.most_train / found, preparation.seed)

    folder.parent.mkdir(parents=True, exist_ok=True)
    decoder = Decoder(size=preparation.size, mode=preparation.mode)
    with tempfile.TemporaryFile(dir=folder.parent) as stream:
        row_of = _decode(sources, set(chain(*parts.values())), decoder, stream, bad)
        if not decoder.shape:
            place = " and ".join(source.place for source in sources)
            bad.check(place, "error")
            known = "it holds no class folder with an image"
            raise DataProblem(f"no images in {place}", known, "Name the folder above.")
        parts = {name: [entry for entry in part if entry in row_of] for name, part in parts.items()}
        rows = np.memmap(stream, dtype=np.uint8, mode="r").reshape(-1, *decoder.shape)
        keys = {entry: hashlib.blake2b(rows[row].data, digest_size=16).digest() for entry, row in row_of.items()}
        if preparation.share and parts["train"]:
            parts["train"], parts["validation"] = _draw(parts["train"], preparation.share, preparation.seed, keys)
        order = list(chain(*parts.values()))
        _write_array(folder / PIXELS, rows, np.asarray([row_of[entry] for entry in order], dtype=np.int64))
    with replacing(folder / LABELS) as file, file.open("wb") as stream:
        np.save(stream, np.asarray([number_of[entry.label] for entry in order], dtype=np.int64))
    mean, std = channel_statistics(np.load(folder / PIXELS, mmap_mode="r")[: len(parts["train"])])
    facts = {
        "classes": classes,
        "sizes": {name: len(part) for name, part in parts.items() if part},
        "found": found,
        "bad": bad.by_reason,
        "total": total,
        "mean": mean,
        "std": std,
        "formats": decoder.formats,
        "also_in_train": _also_in_train(parts, keys),
    }
    write_atomic(folder / FACTS, json.dumps(facts).encode())


def _draw(
    entries: Sequence[Entry], share: float, seed: int, keys: Mapping[Entry, bytes] | None = None
) -> tuple[list[Entry], list[Entry]]:
    """Return the others, and a share drawn of every class; both in the order of the entries.

    Entries with equal keys stay together.
    """
    labels, same = [str(entry.label) for entry in entries], [keys[entry] for entry in entries] if keys else []
    others, drawn = split(labels, share, seed=seed, stratify=True, keys=same)
    return [entries[i] for i in others], [entries[i] for i in drawn]


def _also_in_train(parts: Mapping[Split, Sequence[Entry]], keys: Mapping[Entry, bytes]) -> dict[Split, int]:
    train = {keys[entry] for entry in parts["train"]}
    seen: dict[Split, int] = {
        name: sum(keys[entry] in train for entry in part) for name, part in parts.items() if name != "train"
    }
    return {name: count for name, count in seen.items() if count}


def _decode(
    sources: Sequence[Source], chosen: Set[Entry], decoder: Decoder, stream: BinaryIO, bad: BadImages
) -> dict[Entry, int]:
    """Write the pixels of the chosen entries in the order of reading, and return each one's row.

    An entry may occur twice. How many images can be used is known only at the end.
    """
    row_of: dict[Entry, int] = {}
    rows = 0
    for source in sources:
        for entry, data in source.read([entry for entry in source.listing().entries if entry in chosen]):
            try:
                stream.write(np.ascontiguousarray(decoder.decode(data)).data)
            except BadImageError as error:
                bad.add(entry.name, error.reason, error.detail)
            else:
                row_of[entry] = rows
                rows += 1
    stream.flush()
    return row_of


def _write_array(path: Path, rows: np.ndarray, order: np.ndarray, chunk: int = 256) -> None:
    """Write rows in that order as .npy, a chunk at a time. A memory map would kill the process on a full disk."""
    with replacing(path, sync=True) as file, file.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(order), *rows.shape[1:])}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(order), chunk):
            stream.write(rows[order[start : start + chunk]].data)


def channel_statistics(pixels: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel of (N, H, W, C) uint8, in [0, 1]; integer sums make them exact."""
    if not pixels.size:
        return [], []
    n = pixels.size // pixels.shape[-1]
    sums = np.einsum("nhwc->c", pixels, dtype=np.int64).tolist()
    squares = np.einsum("nhwc,nhwc->c", pixels, pixels, dtype=np.int64).tolist()
    variances = [(q * n - s**2) / n**2 for s, q in zip(sums, squares, strict=True)]
    return [s / n / 255 for s in sums], [float(np.sqrt(v)) / 255 for v in variances]
