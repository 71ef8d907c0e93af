"""Your own pictures: a folder with a folder for each class, or a tar of one.

They lie below `train/` and `test/`, `val/` or `validation/`, or a tenth of every class is drawn to be
scored on, the same for all seeds. What was found is said, and kept in the record (`source.reading`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.api.task import TaskSpec
from bench.config.options import option
from bench.core.errors import UsageError
from bench.records.data import DataRequest, Dataset
from tasks.images.base import ImageConfig, ImageTask


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(ImageConfig):
    """Which pictures to score on, too."""

    validation: str = option(
        "0.1",
        "A folder or tar to score on, or the share drawn for it, of every class alike; a share says nothing where "
        "the pictures lie below train/ and test/, val/ or validation/.",
    )
    split_seed: int = option(
        0,
        "Draws that share, whatever the run's seed: all runs and seeds are scored on the same pictures.",
        at_least=0,
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if (share := share_of(self.validation)) is not None and not 0 < share < 1:
            raise UsageError(f"task.validation={self.validation}", "a share between 0 and 1, or a folder", "Change it.")


def share_of(text: str) -> float | None:
    """The number a text is, or None where it names a folder."""
    try:
        return float(text)
    except ValueError:
        return None


class Images(ImageTask):
    """Each folder or tar is a task of its own, named after it: `Images("photos/birds")` is `images/birds`.

    Raises:
        UsageError: the name is empty.
    """

    argument: ClassVar[str] = "DIR"
    Config: ClassVar[type] = ImagesConfig

    def __init__(self, argument: str) -> None:
        if not argument:
            raise UsageError("images: names no folder", "a folder of class folders, or a tar of one", "images:DIR")
        self.place = Path(argument).expanduser()
        name = re.sub(r"\.(tar|tgz|txz)(\.\w+)?$", "", self.place.resolve().name)
        self.name = f"images/{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('-.')[:50] or 'images'}"

    def open(self, request: DataRequest) -> Dataset:
        """Read and check every picture, split.

        Raises:
            DataProblem: no such folder, or a picture is broken; the error names it.
        """
        from tasks.images.own_files import open_own

        config = request.config or ImagesConfig()
        dataset = open_own(self.name, self.place, request, config, share_of(config.validation))
        self.spec = TaskSpec(
            name=self.name,
            version=dataset.version,
            modality="image",
            num_classes=0,
            metrics=("macro_f1", "accuracy"),
            primary=("macro_f1",),
        )
        return self.settle(dataset)
