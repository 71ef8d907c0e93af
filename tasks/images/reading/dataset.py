"""The dataset of an image task, checked; and the source of images that a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.core.errors import DataProblem
from bench.records.data import Arrays, DataRequest, Dataset, SourceKind
from tasks.images.reading.arrays import find_cifar, find_idx
from tasks.images.reading.files import find_lists, folder_or_tar, is_tar
from tasks.images.reading.prepare import Preparation, prepare
from tasks.images.reading.source import Source, Split
from tasks.images.reading.tables import folder_tables
from tasks.io.directories import listing

LAYOUTS = "class folders below train/ and test/, one tar of such, idx files, CIFAR's binary version, or Parquet files"
SHOWN = 8
"""Names that a message lists at most."""


def source_in(folder: Path, classes: tuple[str, ...]) -> Source:
    """Return what a folder holds, of `LAYOUTS`."""
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
    """Prepare and check the images of the task `name`; also return how many training images there are before any draw.

    A second source holds the validation split. `kind` and `revision` are as for `Dataset`; the splits `needed` must
    not be empty.

    Raises:
        DataProblem: an image is bad and not to be skipped, a needed split is empty, there is one class only, or a
            class has no training image.
    """
    images = prepare(sources, preparation)
    places = " and ".join(source.place for source in sources)
    images.bad.check(places, request.on_bad)
    for split in needed:
        if split not in images.sizes:
            known = ", ".join(f"{size} {other}" for other, size in images.sizes.items()) or "none that can be used"
            raise DataProblem(f"no {split} images in {places}", f"found {known}", f"Expected are {LAYOUTS}.")
    if len(images.classes) < 2:
        known = f"all images in {places} are of one class, {images.classes[0]!r}"
        raise DataProblem(f"{name} has one class only", known, "Name the folder above the class folders.")
    ends = np.cumsum([*images.sizes.values()])[:-1]
    train, *evaluation = map(Arrays, np.split(images.pixels, ends), np.split(images.labels, ends))
    if missing := set(range(len(images.classes))) - set(train.targets.tolist()):
        names = ", ".join(images.classes[i] for i in sorted(missing)[:SHOWN])
        what, known = f"no training image of class {names}", f"read from {places}"
        raise DataProblem(what, known, "Add some, or remove its folder.")
    dataset = Dataset(
        train=train,
        evaluation=dict(zip([*images.sizes][1:], evaluation, strict=True)),
        source=kind,
        revision=revision,
        notes=tuple(f"{name}: {line}" for line in images.bad.summary(images.total)),
        reading={
            "size": preparation.size,
            "mode": "grey" if images.pixels.shape[3] == 1 else "rgb",
            "classes": images.classes,
            "formats": images.formats,
            "files": [file for source in sources for file in source.files],
            "left_out": {reason: group.number for reason, group in images.bad.by_reason.items()},
            "sizes": images.sizes,
            "also_in_train": images.also_in_train,
            "mean": images.mean,
            "std": images.std,
        },
    )
    return dataset, images.found
