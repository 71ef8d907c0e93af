"""Where a vision task's pictures come from: a directory of the user's, else the hub, else what is embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core.errors import DataProblem
from bench.records.data import Arrays, DataRequest, Dataset, SourceKind
from tasks.glue.hub import NoHub
from tasks.images.arrays import find_cifar, find_idx
from tasks.images.base import ImageConfig
from tasks.images.build import Wish, prepare
from tasks.images.cache import Store
from tasks.images.files import TARS, Folder, Source, Tar
from tasks.images.hub import Repository, find_parquet, read_repository
from tasks.images.lists import find_lists
from tasks.images.rejects import Rejects
from tasks.images.tables import Tables
from tasks.io.directories import Wanted, find_folder, listing, name_of
from tasks.io.rows import unusable

LAYOUTS = "class folders below train/ and test/, one tar of such, idx files, CIFAR's binary version, or Parquet files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """A task whose pictures are known.

    Attributes:
        wanted: how its folder is found.
        repository: on the hub.
        classes: names in order; empty where the data name them.
        most: pictures of train at most; 0 takes all.
        evaluation: the split that is scored.
    """

    wanted: Wanted
    repository: Repository
    classes: tuple[str, ...] = ()
    most: int = 0
    evaluation: tuple[str, ...] = field(default=("test",))


def open_vision(task: Vision, request: DataRequest, config: ImageConfig) -> tuple[Dataset, Store]:
    """The dataset of a task from the first source that the request allows and that answers.

    Raises:
        AbsentTask: a directory of the user's is a good one but does not hold this task.
        DataProblem: nothing is there, or something in it is broken.
    """
    name = task.wanted.task
    if request.data in ("auto", "dir") and (folder := find_folder(task.wanted, request)):
        found = in_folder(folder, task.classes)
        return _corpus(task, found, request, config, kind="directory", revision=name_of(folder))
    if request.data == "dir":
        known = "--data dir was asked; neither --data-dir nor BENCH_DATA names one that holds it"
        raise DataProblem(f"no directory with data for {name}", known, task.wanted.how)
    if request.data == "embedded":
        raise DataProblem(f"{name} is not embedded", "embedded are digits and glue", task.wanted.how)
    try:
        tables = read_repository(task.repository, task.classes)
    except NoHub as error:
        raise DataProblem(f"{name} cannot be had from the hub", error.what, task.wanted.how) from error
    return _corpus(task, tables, request, config, kind="hub", revision=tables.place.rpartition("@")[2])


def in_folder(folder: Path, classes: tuple[str, ...] = ()) -> Source:
    """What of `LAYOUTS` a folder holds.

    Raises:
        DataProblem: none of them, or a broken one.
    """
    if found := find_idx(folder, classes) or (find_cifar(folder, classes) if len(classes) in (10, 100) else None):
        return found
    if lists := find_lists(folder):
        return lists
    for place in (folder, folder / "data"):
        if parts := find_parquet(place, {"train": "train", "test": "test"}):
            identity = "\0".join(_parquet_hash(Path(part.name)) for part in parts)
            return Tables(str(place), parts, identity, classes)
    found = listing(folder)
    tars = [path for path in found if path.name.casefold().endswith(TARS) and path.is_file()]
    if len(tars) == 1 and not any(path.is_dir() for path in found):
        return Tar(tars[0])
    if any(path.is_dir() for path in found):
        return Folder(folder)
    names = ", ".join(path.name for path in found[:8]) or "nothing"
    raise DataProblem(f"no images in {folder}", f"it holds {names}", f"Expected are {LAYOUTS}.")


def _parquet_hash(file: Path) -> str:
    import hashlib

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _corpus(
    task: Vision, source: Source, request: DataRequest, config: ImageConfig, *, kind: SourceKind, revision: str
) -> tuple[Dataset, Store]:
    wish = Wish(size=config.size, mode=config.mode, classes=task.classes or source.classes, most=task.most)
    store = prepare([source], wish)
    splits = taken(store, [source], request, needed=("train", *task.evaluation))
    name, whole = task.wanted.task, drawn(task, store)
    part = [f"{name}: {len(splits['train'])} of {whole} training images drawn"] if whole else []
    notes = (*left_out(name, store), *part)
    return dataset(splits, [source], store, config, kind=kind, revision=revision, notes=notes), store


def drawn(task: Vision, store: Store) -> int:
    """Training images of which `task.most` were drawn; 0 where all were taken."""
    whole = int(store.facts["found"].get("train", 0))
    return whole if task.most and whole > task.most else 0


def left_out(name: str, store: Store) -> list[str]:
    """A line where pictures were left out."""
    rejects = Rejects.from_json(store.facts["left_out"])
    return [f"{name}: {line}" for line in rejects.said(store.facts["total"])]


def taken(
    store: Store, sources: Sequence[Source], request: DataRequest, needed: Sequence[str] = ("train",)
) -> dict[str, Arrays]:
    """The splits.

    Raises:
        DataProblem: a picture cannot be used and is not to be left out; a split has none; a class has none in train.
    """
    place = sources[0].place
    Rejects.from_json(store.facts["left_out"]).check(" and ".join(s.place for s in sources), request.on_bad)
    splits = {
        name: Arrays(store.pixels[first:last], store.labels[first:last])
        for name, (first, last) in store.facts["splits"].items()
        if last > first
    }
    for name in needed:
        if name not in splits:
            known = ", ".join(f"{name}: {len(rows)}" for name, rows in splits.items()) or "none that can be used"
            raise DataProblem(f"no images to {name} on in {place}", f"found {known}", f"Expected are {LAYOUTS}.")
    classes = store.facts["classes"]
    if len(classes) < 2:
        raise unusable(
            Path(place), f"all images are of one class, {classes[0]!r}", "", "Name the folder above classes."
        )
    missing = set(range(len(classes))) - set(splits["train"].targets.tolist())
    if missing:
        names = ", ".join(classes[number] for number in sorted(missing)[:8])
        raise DataProblem(
            f"no training image of class {names}", f"read from {place}", "Add some, or take its folder away."
        )
    return splits


def dataset(
    splits: Mapping[str, Arrays],
    sources: Sequence[Source],
    store: Store,
    config: ImageConfig,
    *,
    kind: SourceKind,
    revision: str,
    notes: tuple[str, ...] = (),
    reading: Mapping[str, Any] | None = None,
    version: str = "",
) -> Dataset:
    """The dataset, and how it was read."""
    facts = store.facts
    return Dataset(
        train=splits["train"],
        evaluation={name: rows for name, rows in splits.items() if name != "train"},
        source=kind,
        revision=revision,
        notes=notes,
        version=version,
        reading={
            "size": config.size,
            "mode": "grey" if facts["shape"][2] == 1 else "rgb",
            "classes": facts["classes"],
            "formats": facts["formats"],
            "files": [file for source in sources for file in source.files],
            "left_out": Rejects.from_json(facts["left_out"]).counts(),
            "sizes": {name: len(rows) for name, rows in splits.items()},
            "mean": facts["mean"],
            "std": facts["std"],
            **(reading or {}),
        },
    )
