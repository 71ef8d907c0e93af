"""The dataset of an image task, checked; and the source of images that a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.core.errors import DataProblem
from bench.records.data import Arrays, DataRequest, Dataset, SourceKind
from tasks.images.reading.arrays import find_cifar, find_idx
from tasks.images.reading.class_folders import folder_or_tar, is_tar
from tasks.images.reading.lists import find_lists
from tasks.images.reading.prepare import Preparation, prepare
from tasks.images.reading.source import BadImages, Source, Split
from tasks.images.reading.tables import folder_tables
from tasks.io.directories import listing

LAYOUTS = "class folders below train/ and test/, one tar of such, idx files, CIFAR's binary version, or Parquet files"
SHOWN = 8
"""Names that a message lists at most."""


def source_in(folder: Path, classes: tuple[str, ...]) -> Source:
    """Return what a folder holds, of `LAYOUTS`.

    Raises:
        DataProblem: none of them, or a broken one.
    """
    arrays = find_idx(folder, classes) or find_cifar(folder, classes)
    if source := arrays or find_lists(folder) or folder_tables(folder, classes):
        return source
    content = listing(folder)
    if any(path.is_dir() for path in content):
        return folder_or_tar(folder)
    tars = [path for path in content if is_tar(path)]
    if len(tars) == 1:
        return folder_or_tar(tars[0])
    names = ", ".join(path.name for path in content[:SHOWN]) or "nothing"
    raise DataProblem(f"no images in {folder}", f"it holds {names}", f"Expected are {LAYOUTS}.")


def load_images(
    name: str,
    sources: Sequence[Source],
    preparation: Preparation,
    request: DataRequest,
    *,
    kind: SourceKind,
    revision: str,
    needed: Sequence[Split] = ("train",),
) -> tuple[Dataset, int]:
    """Prepare and check the images of a task.

    Args:
        name: of the task.
        sources: where the images are; the second one, if any, holds the validation split.
        preparation: how they become arrays.
        request: says whether bad images are skipped.
        kind: as for Dataset; so is `revision`.
        needed: splits that must not be empty.

    Returns:
        The dataset, and the number of training images that were found, from which some may have been drawn.

    Raises:
        DataProblem: an image is bad and not to be skipped, a needed split is empty, there is one class only, or a
            class has no training image.
    """
    pixels, labels, facts = prepare(sources, preparation)
    places = " and ".join(source.place for source in sources)
    bad = BadImages(facts["bad"])
    bad.check(places, request.on_bad)
    ends = np.cumsum([*facts["sizes"].values()])[:-1]
    parts = zip(facts["sizes"], np.split(pixels, ends), np.split(labels, ends), strict=True)
    splits = {split: Arrays(inputs, targets) for split, inputs, targets in parts}
    for split in needed:
        if split not in splits:
            known = ", ".join(f"{size} {other}" for other, size in facts["sizes"].items()) or "none that can be used"
            raise DataProblem(f"no {split} images in {places}", f"found {known}", f"Expected are {LAYOUTS}.")
    classes = facts["classes"]
    if len(classes) < 2:
        known = f"all images in {places} are of one class, {classes[0]!r}"
        raise DataProblem(f"{name} has one class only", known, "Name the folder above the class folders.")
    train = splits.pop("train")
    if missing := set(range(len(classes))) - set(train.targets.tolist()):
        names, todo = ", ".join(classes[i] for i in sorted(missing)[:SHOWN]), "Add some, or remove its folder."
        raise DataProblem(f"no training image of class {names}", f"read from {places}", todo)
    dataset = Dataset(
        train=train,
        evaluation=splits,
        source=kind,
        revision=revision,
        notes=tuple(f"{name}: {line}" for line in bad.summary(facts["total"])),
        reading={
            "size": preparation.size,
            "mode": "grey" if pixels.shape[3] == 1 else "rgb",
            "classes": classes,
            "formats": facts["formats"],
            "files": [file for source in sources for file in source.files],
            "left_out": {reason: group.number for reason, group in bad.by_reason.items()},
            "sizes": facts["sizes"],
            "mean": facts["mean"],
            "std": facts["std"],
        },
    )
    return dataset, facts["found"]
