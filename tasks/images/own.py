"""Images of the user: a folder with one folder for each class, or a tar of one.

They are below `train/` and `test/`, `val/` or `validation/`; otherwise a tenth of every class is drawn for validation,
the same for all seeds. A note says what was found, and the record keeps it (`source.reading`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from bench.config.options import option
from bench.core.errors import DataProblem, UsageError
from bench.records.data import Arrays, DataRequest, Dataset
from tasks.images.base import ImageConfig, ImageTask, image_task_spec
from tasks.io.cautions import doubtful_classes, never_scored, seen_in_training
from tasks.io.classes import METRICS, WEIGHTS_HELP


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(ImageConfig):
    validation: str = option(
        "0.1",
        "A folder or tar to evaluate on, or the share drawn for it, the same of every class; a share has no effect "
        "where the images are below train/ and test/, val/ or validation/.",
    )
    split_seed: int = option(
        0,
        "Seed of that draw, whatever the run's seed: all runs and seeds are evaluated on the same images.",
        at_least=0,
    )

    class_weights: Literal["none", "balanced"] = option("none", WEIGHTS_HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share is not None and not 0 < self.share < 1:
            raise UsageError(f"task.validation={self.validation}", "a share between 0 and 1, or a folder", "Change it.")

    @property
    def share(self) -> float | None:
        """The share to draw; None where `validation` names a folder."""
        try:
            return float(self.validation)
        except ValueError:
            return None


class Images(ImageTask):
    """Each folder or tar is a task of its own, named after it: `Images("photos/birds")` is `images/birds`.

    Raises:
        UsageError: the name is empty.
    """

    argument: ClassVar[str] = "DIR"
    Config = ImagesConfig

    def __init__(self, argument: str) -> None:
        if not argument:
            raise UsageError("images: names no folder", "a folder of class folders, or a tar of one", "images:DIR")
        self.place = Path(argument).expanduser()
        name = re.sub(r"\.(tar|tgz|txz)(\.\w+)?$", "", self.place.resolve().name)
        self.name = f"images/{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-.')[:50] or 'images'}"

    def open(self, request: DataRequest) -> Dataset:
        from tasks.images.reading.dataset import load_images
        from tasks.images.reading.files import folder_or_tar
        from tasks.images.reading.prepare import Preparation
        from tasks.images.reading.source import sha256_of

        config = request.config_as(ImagesConfig)
        sources = [folder_or_tar(self.place)]
        splits = {entry.split for entry in sources[0].listing().entries}
        if config.share is None:
            if splits > {"train"}:
                known = f"{self.place} itself holds {', '.join(sorted(splits))}"
                todo = "Leave task.validation out, or name the folder of train alone."
                raise DataProblem(f"{self.name}: task.validation names a second folder to evaluate on", known, todo)
            sources.append(folder_or_tar(Path(config.validation).expanduser(), "validation"))
        share = config.share if config.share and splits == {"train"} else 0.0
        preparation = Preparation(size=config.size, mode=config.mode, share=share, seed=config.split_seed)
        revision = self.place.resolve().name
        dataset, _ = load_images(self.name, sources, preparation, request, kind="file", revision=revision)
        if not dataset.evaluation:
            known = f"read from {self.place}"
            raise DataProblem(f"{self.name}: no image to evaluate on", known, "Add some to every class.")
        hashes = [source.sha256 for source in sources]
        version = hashes[0] if len(hashes) == 1 else sha256_of(*hashes)
        spec = image_task_spec(self.name, version=version, metrics=METRICS)
        self.spec = replace(spec, balanced=config.class_weights == "balanced")
        self.complete_spec(dataset)
        where = f"share {share:g}, split seed {config.split_seed}" if share else sources[-1].place
        summary = _summary(self.spec.shape, dataset.reading["classes"], dataset.reading["sizes"])
        notes = [f"{self.name}: {summary} ({where})", *dataset.notes]
        if ignored := sum(source.listing().ignored for source in sources):
            notes.append(f"{self.name}: {ignored} files beside the classes are ignored")
        if len(set(hashes)) < len(hashes):
            notes.append(f"{self.name}: validation and train are the same images; the score means nothing")
        reading = dataset.reading
        warnings = doubtful_classes(self.name, reading["classes"])
        for split, rows in dataset.evaluation.items():
            assert isinstance(rows, Arrays)
            seen = reading["also_in_train"].get(split, 0)
            warnings += seen_in_training(self.name, seen, len(rows), f"{split} images")
            scored = {reading["classes"][target] for target in set(rows.targets.tolist())}
            warnings += never_scored(self.name, reading["classes"], scored, split)
        validation = {
            "validation": f"{share:g}" if share else Path(sources[-1].place).name,
            "split_seed": config.split_seed if share else None,
        }
        return replace(
            dataset,
            notes=tuple(notes),
            warnings=tuple(warnings),
            version=version,
            reading={**reading, **validation},
        )


def _summary(shape: tuple[int, ...], classes: Sequence[str], sizes: Mapping[str, int], shown: int = 8) -> str:
    """Return classes (at most `shown` of them by name), shape and sizes of the splits in one line."""
    channels, height, width = shape
    names = ", ".join(repr(name[:30]) for name in classes[:shown]) + (", …" if len(classes) > shown else "")
    splits = ", ".join(f"{size} {split}" for split, size in sizes.items())
    return f"{len(classes)} classes: {names} · {width}×{height}×{channels} · {splits}"
