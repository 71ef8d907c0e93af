"""How far a run is, in a file beside its claim that the runner rewrites while it trains."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from bench.records.brief import LONGEST_S
from bench.records.fields import Count

FILE = "progress.json"
MOST_BYTES = 4096


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds.

    Attributes:
        owner: that of the claim under which it was written.
        step: optimiser steps done, those before an interruption included.
        steps: how many there will be; None where that is not known yet.
        loss: of the last step; None where it is NaN or infinite.
        train_s: seconds that these steps took.
    """

    owner: str
    step: Count
    steps: Count | None
    loss: float | None
    train_s: Annotated[float, Meta(ge=0, le=LONGEST_S)]

    @property
    def left_s(self) -> float | None:
        """Seconds until the last step, at the mean speed so far; None where that is not known."""
        if self.steps is None or not self.step or not self.train_s:
            return None
        return max(self.steps - self.step, 0) * self.train_s / self.step


_DECODER = msgspec.json.Decoder(Progress)


def read(folder: Path, owner: str) -> Progress | None:
    """The progress of the run of this folder; None if its owner has written none, or if the file is not whole."""
    path = folder / FILE
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            return None
        with path.open("rb") as stream:
            found = _DECODER.decode(stream.read(MOST_BYTES))
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.owner == owner else None
