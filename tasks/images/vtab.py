"""VTAB-1k: nineteen image tasks, each with a thousand training images (arXiv 1910.04867).

A directory holds a folder for each task, and in it class folders below train/ and test/, a tar of such, Parquet files,
or the lists train800val200.txt and test.txt. Where train has more than a thousand images, as on the hub, a thousand are
drawn, the same share of every class and the same for all seeds. They are not those of the paper; a note says so.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from bench.core.errors import UsageError, did_you_mean, plain
from bench.core.hub import HubDataset
from tasks.images.base import image_task_spec
from tasks.images.vision import PublishedImageTask
from tasks.io.directories import Wanted

TRAIN = 1000


class Location(NamedTuple):
    """A repository on the hub, another usual name of the task's folder, and a commit; `main` is the newest one."""

    repository: str
    folder: str = ""
    commit: str = "main"


LOCATIONS = {
    "caltech101": Location("wds_vtab-caltech101"),
    "cifar100": Location("wds_vtab-cifar100", "cifar"),
    "dtd": Location("wds_vtab-dtd"),
    "oxford_flowers102": Location("wds_vtab-flowers"),
    "oxford_iiit_pet": Location("wds_vtab-pets"),
    "svhn": Location("wds_vtab-svhn"),
    "sun397": Location("wds_sun397"),
    "patch_camelyon": Location("wds_vtab-pcam", commit="502695fe1a141108650e3c5b91c8b5e0ff84ed49"),
    "eurosat": Location("wds_vtab-eurosat"),
    "resisc45": Location("wds_vtab-resisc45"),
    "diabetic_retinopathy": Location("wds_vtab-diabetic_retinopathy"),
    "clevr_count": Location("wds_vtab-clevr_count_all", commit="8b5dce4d5393a04fb58b9261b22a881b02e379b1"),
    "clevr_distance": Location(
        "wds_vtab-clevr_closest_object_distance", "clevrdist", "ec9c04224a95836ca0344a6000ec8d8bc8a6d4f2"
    ),
    "dmlab": Location("wds_vtab-dmlab"),
    "kitti": Location("wds_vtab-kitti_closest_vehicle_distance"),
    "dsprites_location": Location("wds_vtab-dsprites_label_x_position", "dspritesloc"),
    "dsprites_orientation": Location("wds_vtab-dsprites_label_orientation", "dspritesori"),
    "smallnorb_azimuth": Location("wds_vtab-smallnorb_label_azimuth", "smallnorbazi"),
    "smallnorb_elevation": Location("wds_vtab-smallnorb_label_elevation", "smallnorbele"),
}


class VTAB(PublishedImageTask):
    """One of the nineteen tasks: `VTAB("dtd")`. Images differ in size: `--set task.size=224`.

    Raises:
        UsageError: there is no such task.
    """

    members: ClassVar[tuple[str, ...]] = tuple(LOCATIONS)

    def __init__(self, member: str) -> None:
        if member not in LOCATIONS:
            hint = f"{did_you_mean(member, self.members)} `bench list tasks` describes them.".strip()
            raise UsageError(f"unknown VTAB task '{member}'", f"known: {', '.join(self.members)}", hint)
        repository, folder, commit = LOCATIONS[member]
        self.spec = image_task_spec(f"vtab/{member}")
        self.hub = HubDataset(name=f"clip-benchmark/{repository}", config="default", revision=commit)
        self.location = Wanted(
            task=self.spec.name,
            folders=tuple(filter(None, (plain(member), folder))),
            suites=("vtab", "vtab1k"),
            others=frozenset(map(plain, LOCATIONS)),
            beside=False,
            expected=f"a folder {member}",
            how=f"Name its folder with --data-dir vtab/{member}=DIR, or a folder that holds one for each task with "
            "--data-dir vtab=DIR.",
        )
        self.most_train = TRAIN
