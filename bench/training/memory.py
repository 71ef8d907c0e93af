"""Peak memory of one run: of the GPU that it trains on, else of this process where the system reports it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch


def reset() -> None:
    """Start a new peak, of this process and of every GPU that it already uses."""
    if torch.cuda.is_initialized():  # otherwise nothing was allocated, and a call would take memory on the GPU
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets VmHWM to the memory that is resident now


def peak(device: torch.device) -> int | None:
    """Return the most bytes in use since `reset` by a run that trains on `device`; None where nothing reports it.

    On a GPU these are the bytes allocated there, elsewhere the resident memory of this process.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
