"""Where an interrupted run left what it needs to go on: one file in its folder, named after how batches were cut."""

from __future__ import annotations

import zipfile
from pathlib import Path


def path(directory: Path, *, world: int, parts: int) -> Path:
    """The checkpoint of a run on `world` devices with `parts` micro batches per step, in which progress is counted."""
    return directory / f"checkpoint-{world}x{parts}.ckpt"


def is_whole(file: Path) -> bool:
    """Tell whether a checkpoint can be loaded and every byte in it is as it was written, by its CRC-32 sums."""
    import torch

    try:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                return False
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file may raise anything
        return False
    return True


def drop(directory: Path) -> None:
    """Remove every checkpoint: nothing will go on from them."""
    for file in directory.glob("checkpoint-*.ckpt*"):
        file.unlink(missing_ok=True)


def step(directory: Path) -> int | None:
    """Return after how many optimiser steps the latest checkpoint was written; None where none can be read."""
    files = sorted(directory.glob("checkpoint-*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not files:
        return None
    import torch

    try:
        return int(torch.load(files[-1], map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception:  # a damaged file may raise anything
        return None
