"""The user's own class folders and tars, read, split, and said."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.core.errors import DataProblem
from bench.records.data import DataRequest, Dataset
from tasks.images.build import Wish, prepare
from tasks.images.files import TARS, Folder, Source, Tar
from tasks.images.names import Listing
from tasks.images.own import ImagesConfig
from tasks.images.sources import dataset, left_out, taken

SHOWN = 8
"""Classes that the line on what was found names."""


def open_own(name: str, place: Path, request: DataRequest, config: ImagesConfig, share: float | None) -> Dataset:
    """The dataset of a folder or tar.

    Raises:
        DataProblem: no such folder, or a picture cannot be used and is not to be left out.
    """
    sources = [_source(place)]
    parts = _splits(sources[0].listing())
    if share is None:
        if parts > {"train"}:
            known = f"{place} itself holds {', '.join(sorted(parts))}"
            todo = "Leave task.validation out, or name the folder of train alone."
            raise DataProblem(f"{name}: task.validation names a second folder to score on", known, todo)
        sources.append(_source(Path(config.validation).expanduser(), split="validation"))
    drawn = share if share is not None and parts == {"train"} else 0.0
    wish = Wish(size=config.size, mode=config.mode, share=drawn, seed=config.split_seed)
    store = prepare(sources, wish)
    splits = taken(store, sources, request)
    if len(splits) == 1:
        raise DataProblem(f"{name}: no image to score on", f"read from {place}", "Add some to every class.")
    hashes = [source.sha256 for source in sources]
    where = f"share {drawn:g}, split seed {config.split_seed}" if drawn else sources[-1].place
    version = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    same = [f"{name}: validation is train itself: no score of it counts"] if len(set(hashes)) < len(hashes) else []
    names = store.facts["classes"]
    shown = ", ".join(repr(label[:30]) for label in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    height, width, channels = store.facts["shape"]
    sizes = ", ".join(f"{len(rows)} to {'train' if split == 'train' else split}" for split, rows in splits.items())
    found = f"{name}: {len(names)} classes: {shown} · {width}×{height}×{channels} · {sizes} ({where})"
    passed = sum(source.listing().passed for source in sources)
    beside = [f"{name}: {passed} files beside the classes are passed over"] if passed else []
    return dataset(
        splits,
        sources,
        store,
        config,
        kind="file",
        revision=place.resolve().name,
        notes=(found, *left_out(name, store), *beside, *same),
        reading={
            "validation": f"{drawn:g}" if drawn else Path(sources[-1].place).name,
            "split_seed": config.split_seed if drawn else None,
        },
        version=version,
    )


def _splits(listing: Listing) -> set[str]:
    return {entry.split for entry in listing.entries}


def _source(place: Path, split: str = "") -> Source:
    if place.is_dir():
        return Folder(place, split)
    if place.is_file() and place.name.casefold().endswith(TARS):
        return Tar(place, split)
    kind = f"is no tar ({', '.join(TARS)})" if place.exists() else "does not exist"
    todo = "Give a folder of class folders, or a tar of one."
    raise DataProblem(f"{place} {kind}", f"looked from {Path.cwd()}", todo)
