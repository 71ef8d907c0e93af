"""Where an interrupted run left what it needs to go on: one file in its folder, named after how batches were cut."""

from __future__ import annotations

from pathlib import Path


def path(directory: Path, *, world: int, parts: int) -> Path:
    """The checkpoint of a run on `world` devices with `parts` micro batches per step, in which progress is counted."""
    return directory / f"checkpoint-{world}x{parts}.ckpt"


def drop(directory: Path) -> None:
    """Remove every checkpoint: the run has ended, well or not."""
    for file in directory.glob("checkpoint-*.ckpt*"):
        file.unlink(missing_ok=True)
