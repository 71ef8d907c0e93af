"""VTAB-1k: nineteen kinds of pictures, a thousand of each to train on, test is scored (arXiv 1910.04867).

A directory holds a folder for each task, in it class folders below train/ and test/, a tar of such, Parquet files, or
the lists train800val200.txt and test.txt. Where train is larger than a thousand, as it is on the hub, a thousand are
drawn, of every class alike and the same for all seeds: other ones than those of the paper, which is noted.
"""

from __future__ import annotations

from typing import ClassVar

from bench.api.task import TaskSpec
from bench.core.errors import UsageError, did_you_mean
from bench.records.data import DataRequest, Dataset
from tasks.images.base import ImageTask

DRAWN = "1000 training images drawn, not the paper's"


class VTAB(ImageTask):
    """One task by its name within the suite: `VTAB("dtd")`. Pictures differ in size: `--set task.size=224`.

    Raises:
        UsageError: no such task.
    """

    members: ClassVar[tuple[str, ...]] = (
        "caltech101",
        "cifar100",
        "dtd",
        "oxford_flowers102",
        "oxford_iiit_pet",
        "svhn",
        "sun397",
        "patch_camelyon",
        "eurosat",
        "resisc45",
        "diabetic_retinopathy",
        "clevr_count",
        "clevr_distance",
        "dmlab",
        "kitti",
        "dsprites_location",
        "dsprites_orientation",
        "smallnorb_azimuth",
        "smallnorb_elevation",
    )

    def __init__(self, member: str) -> None:
        if member not in self.members:
            hint = f"{did_you_mean(member, self.members)} `bench list tasks` describes them.".strip()
            raise UsageError(f"unknown VTAB task '{member}'", f"known: {', '.join(self.members)}", hint)
        self.member = member
        self.spec = TaskSpec(
            name=f"vtab/{member}",
            version=1,
            modality="image",
            num_classes=0,
            metrics=("accuracy", "macro_f1"),
            primary=("accuracy",),
        )

    def open(self, request: DataRequest) -> Dataset:
        """Read and check every picture of train and test.

        Raises:
            AbsentTask: a directory of the user's is a good one but does not hold this task.
            DataProblem: nothing is there, or a picture or file is broken; the error names it.
        """
        from tasks.images.sources import drawn, open_vision
        from tasks.images.vtab_schema import vision

        task = vision(self.member)
        dataset, store = open_vision(task, request, request.config or self.Config())
        return self.settle(dataset, note=DRAWN if drawn(task, store) else "")
