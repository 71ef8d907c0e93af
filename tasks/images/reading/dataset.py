"""The dataset of an image task, checked; and the source of images that a folder or file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.core.errors import DataProblem
from bench.records.data import Arrays, DataRequest, Dataset, SourceKind
from tasks.images.reading.arrays import find_cifar, find_idx
from tasks.images.reading.class_folders import TARS, open_folder, open_tar
from tasks.images.reading.lists import find_lists
from tasks.images.reading.prepare import Facts, Preparation, prepare
from tasks.images.reading.source import Source, Split
from tasks.images.reading.tables import folder_tables
from tasks.io.directories import listing

LAYOUTS = "class folders below train/ and test/, one tar of such, idx files, CIFAR's binary version, or Parquet files"
SHOWN = 8
"""Names that a message lists at most."""


def source_in(folder: Path, classes: tuple[str, ...] = ()) -> Source:
    """Return what a folder holds, of `LAYOUTS`.

    Raises:
        DataProblem: none of them, or a broken one.
    """
    arrays = find_idx(folder, classes) or (find_cifar(folder, classes) if len(classes) in (10, 100) else None)
    if source := arrays or find_lists(folder) or folder_tables(folder, classes):
        return source
    found = listing(folder)
    if any(path.is_dir() for path in found):
        return open_folder(folder)
    tars = [path for path in found if _is_tar(path)]
    if len(tars) == 1:
        return open_tar(tars[0])
    names = ", ".join(path.name for path in found[:SHOWN]) or "nothing"
    raise DataProblem(f"no images in {folder}", f"it holds {names}", f"Expected are {LAYOUTS}.")


def folder_or_tar(place: Path, split: Split | None = None) -> Source:
    """Return the class folders in a folder or tar.

    Raises:
        DataProblem: it is neither.
    """
    if place.is_dir():
        return open_folder(place, split)
    if _is_tar(place):
        return open_tar(place, split)
    problem = f"is no tar ({', '.join(TARS)})" if place.exists() else "does not exist"
    todo = "Give a folder of class folders, or a tar of one."
    raise DataProblem(f"{place} {problem}", f"relative to {Path.cwd()}", todo)


def _is_tar(file: Path) -> bool:
    return file.name.casefold().endswith(TARS) and file.is_file()


def load_images(
    name: str,
    sources: Sequence[Source],
    preparation: Preparation,
    request: DataRequest,
    *,
    kind: SourceKind,
    revision: str,
    needed: Sequence[Split] = ("train",),
    version: str = "",
    reading: Mapping[str, object] | None = None,
) -> tuple[Dataset, Facts]:
    """Prepare and check the images of a task.

    Args:
        name: of the task.
        sources: where the images are; the second one, if any, holds the validation split.
        preparation: how they become arrays.
        request: says whether bad images are skipped.
        kind: as for Dataset; so are `revision` and `version`.
        needed: splits that must not be empty.
        reading: what the record says beside what is known of all images.

    Raises:
        DataProblem: an image is bad and not to be skipped, a needed split is empty, there is one class only, or a
            class has no training image.
    """
    images = prepare(sources, preparation)
    facts, bad = images.facts, images.bad
    places = " and ".join(source.place for source in sources)
    bad.check(places, request.on_bad)
    splits = {
        split: Arrays(images.pixels[first:end], images.labels[first:end])
        for split, (first, end) in facts["splits"].items()
        if end > first
    }
    sizes = {split: len(rows) for split, rows in splits.items()}
    for split in needed:
        if split not in splits:
            known = ", ".join(f"{size} {other}" for other, size in sizes.items()) or "none that can be used"
            raise DataProblem(f"no {split} images in {places}", f"found {known}", f"Expected are {LAYOUTS}.")
    _check_classes(name, places, facts["classes"], splits["train"])
    dataset = Dataset(
        train=splits.pop("train"),
        evaluation=splits,
        source=kind,
        revision=revision,
        notes=tuple(f"{name}: {line}" for line in bad.summary(facts["total"])),
        version=version,
        reading={
            "size": preparation.size,
            "mode": "grey" if facts["shape"][2] == 1 else "rgb",
            "classes": facts["classes"],
            "formats": facts["formats"],
            "files": [file for source in sources for file in source.files],
            "left_out": {reason: group.number for reason, group in bad.by_reason.items()},
            "sizes": sizes,
            "mean": facts["mean"],
            "std": facts["std"],
            **(reading or {}),
        },
    )
    return dataset, facts


def _check_classes(name: str, places: str, classes: Sequence[str], train: Arrays) -> None:
    if len(classes) < 2:
        known = f"all images in {places} are of one class, {classes[0]!r}"
        raise DataProblem(f"{name} has one class only", known, "Name the folder above the class folders.")
    if missing := set(range(len(classes))) - set(train.targets.tolist()):
        names, todo = ", ".join(classes[i] for i in sorted(missing)[:SHOWN]), "Add some, or remove its folder."
        raise DataProblem(f"no training image of class {names}", f"read from {places}", todo)
