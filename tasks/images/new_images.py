"""New images without classes, from files and folders, decoded as those that a run was trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.api.inputs import InputRequest, NewExamples
from bench.core.errors import DataProblem, UsageError
from bench.core.files import regular
from tasks.images.reading.decode import SUFFIXES, BadImageError, Decoder, Mode
from tasks.images.reading.files import LARGEST
from tasks.images.reading.source import BadImages
from tasks.io.readers import unreadable

WINDOW = 64
"""Images that are in memory at a time."""


class NewImages:
    """Images in the order in which they are named; those of a folder by their paths, as `NewInputs`.

    Raises:
        UsageError: --keep is given, which is of tables.
        DataProblem: a path does not exist, or a folder holds no image.
    """

    name = "image"

    def __init__(self, request: InputRequest) -> None:
        if request.keep:
            raise UsageError("--keep names columns", f"{request.task.name} reads images", "Leave it out.")
        self.request, self.bad = request, BadImages()
        self.files = [found for place in request.places for found in _find(place)]

    @property
    def left_out(self) -> int:
        return len(self.bad)

    def check(self) -> None:
        for _ in self._decoded():
            pass
        self.bad.check(", ".join(map(str, self.request.places[:3])), self.request.on_bad)
        if len(self.bad) == len(self.files):
            self.bad.check(str(self.request.places[0]), "error")

    def notes(self) -> list[str]:
        return self.bad.summary(len(self.files))

    def windows(self) -> Iterator[NewExamples]:
        names: list[str] = []
        pixels: list[np.ndarray] = []
        for name, image in self._decoded():
            names.append(name)
            pixels.append(image)
            if len(names) == WINDOW:
                yield self._window(names, pixels)
                names, pixels = [], []
        if names:
            yield self._window(names, pixels)

    def _decoded(self) -> Iterator[tuple[str, np.ndarray]]:
        channels, height, width = self.request.task.shape
        mode: Mode = "grey" if channels == 1 else "rgb"
        self.bad = BadImages()
        for name, file in self.files:
            try:
                pixels = Decoder(size=self.request.reading.get("size"), mode=mode).decode(_bytes(file))
                if pixels.shape[:2] != (height, width):
                    detail = f"{pixels.shape[1]}×{pixels.shape[0]}, not {width}×{height}"
                    raise BadImageError("not of the size that the run was trained on", detail)
            except BadImageError as error:
                self.bad.add(name, error.reason, error.detail)
            else:
                yield name, pixels

    def _window(self, names: list[str], images: list[np.ndarray]) -> NewExamples:
        from tasks.images.augment import normalise

        pixels, reading = np.stack(images), self.request.reading
        return NewExamples(
            names=names,
            kept=[()] * len(names),
            lengths=np.zeros(len(names), dtype=np.int64),
            collate=lambda index: {"x": normalise(pixels[index], reading["mean"], reading["std"])},
        )


def _bytes(file: Path) -> bytes:
    try:
        return regular(file, most=LARGEST).read_bytes()
    except OSError as error:
        raise BadImageError("a file that cannot be read", error.strerror or str(error)) from error


def _find(place: Path) -> list[tuple[str, Path]]:
    """Return the name and the path of an image, or of all images below a folder, hidden ones left out."""
    if place.is_file():
        return [(str(place), place)]
    if not place.is_dir():
        raise DataProblem(f"{place}: no such file", f"looked from {Path.cwd()}", "Give images, or folders of images.")
    found: list[Path] = []
    for folder, below, names in os.walk(place, onerror=unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [Path(folder) / name for name in names if not name.startswith(".")]
    images = sorted(file for file in found if file.suffix.casefold() in SUFFIXES)
    if not images:
        known = f"{len(found)} files, none of which ends in {', '.join(SUFFIXES[:4])}, …"
        raise DataProblem(f"{place} holds no image", known, "Give images, or folders of images.")
    return [(str(file.relative_to(place)), file) for file in images]
