"""Peak memory of one run: of the GPU where there is one, else of this process, where the system can tell."""

from __future__ import annotations

from pathlib import Path

import torch


def reset() -> None:
    """Begin a new peak."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM to what is resident now
    except OSError:
        return


def peak() -> int | None:
    """Bytes at the highest point since `reset`; None where the system does not say."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
