"""Peak memory of one run: of the GPU that it trains on, else of this process where the system reports it."""

from __future__ import annotations

from pathlib import Path

import torch

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """The most bytes in use since it was made, by a run in this process."""

    def __init__(self) -> None:
        """Start a new peak, of this process and of every GPU that it already uses."""
        if torch.cuda.is_initialized():  # otherwise nothing was allocated, and a call would take memory on the GPU
            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
        try:
            RESET.write_text("5")  # Linux: sets VmHWM to the memory that is resident now
            self._is_new = True
        except OSError:
            self._is_new = False

    def on(self, device: torch.device) -> int | None:
        """Return the peak of a run that trains on `device`; None where nothing reports it.

        On a GPU these are the bytes allocated there, elsewhere the resident memory of this process. Where no new peak
        can be started there is none, since it may be that of an earlier run.
        """
        if device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(device))
        try:
            lines = STATUS.read_text().splitlines() if self._is_new else []
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
