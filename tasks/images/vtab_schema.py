"""VTAB-1k's folders, as they are usually named, and repositories on the hub."""

from __future__ import annotations

from tasks.images.hub import Repository
from tasks.images.sources import Vision
from tasks.images.vtab import VTAB
from tasks.io.directories import Wanted, normal

SUITES = ("vtab", "vtab1k")
TRAIN = 1000
FOLDERS = {
    "cifar100": ("cifar",),
    "clevr_distance": ("clevrdist",),
    "dsprites_location": ("dspritesloc",),
    "dsprites_orientation": ("dspritesori",),
    "smallnorb_azimuth": ("smallnorbazi",),
    "smallnorb_elevation": ("smallnorbele",),
}
"""Other names of a task's folder than its own."""
OWNER = "clip-benchmark"
REPOSITORIES = {
    "caltech101": "wds_vtab-caltech101",
    "cifar100": "wds_vtab-cifar100",
    "dtd": "wds_vtab-dtd",
    "oxford_flowers102": "wds_vtab-flowers",
    "oxford_iiit_pet": "wds_vtab-pets",
    "svhn": "wds_vtab-svhn",
    "sun397": "wds_sun397",
    "patch_camelyon": "wds_vtab-pcam",
    "eurosat": "wds_vtab-eurosat",
    "resisc45": "wds_vtab-resisc45",
    "diabetic_retinopathy": "wds_vtab-diabetic_retinopathy",
    "clevr_count": "wds_vtab-clevr_count_all",
    "clevr_distance": "wds_vtab-clevr_closest_object_distance",
    "dmlab": "wds_vtab-dmlab",
    "kitti": "wds_vtab-kitti_closest_vehicle_distance",
    "dsprites_location": "wds_vtab-dsprites_label_x_position",
    "dsprites_orientation": "wds_vtab-dsprites_label_orientation",
    "smallnorb_azimuth": "wds_vtab-smallnorb_label_azimuth",
    "smallnorb_elevation": "wds_vtab-smallnorb_label_elevation",
}
REVISIONS = {
    "patch_camelyon": "502695fe1a141108650e3c5b91c8b5e0ff84ed49",
    "clevr_count": "8b5dce4d5393a04fb58b9261b22a881b02e379b1",
    "clevr_distance": "ec9c04224a95836ca0344a6000ec8d8bc8a6d4f2",
}
"""Commits that are known; of the others, the branch's is looked up, and is in the record."""


def vision(member: str) -> Vision:
    """How a task is found."""
    wanted = Wanted(
        task=f"vtab/{member}",
        entries=(f"vtab/{member}",),
        folders=(normal(member), *FOLDERS.get(member, ())),
        suites=SUITES,
        others=frozenset(normal(name) for name in VTAB.members),
        beside=False,
        expected=f"a folder {member}",
        how=f"Name its folder with --data-dir vtab/{member}=DIR, or a folder that holds one for each task with "
        "--data-dir vtab=DIR.",
    )
    repository = Repository(name=f"{OWNER}/{REPOSITORIES[member]}", revision=REVISIONS.get(member, "main"))
    return Vision(wanted=wanted, repository=repository, most=TRAIN)
