"""Pictures that cannot be used: by reason how many, the first of them, and what was found there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.core.errors import DataProblem


class First(NamedTuple):
    """How many for one reason, where the first of them is, and what was found there."""

    times: int
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class Rejects:
    """Counted by reason, in the order in which reasons were met."""

    by_reason: dict[str, First] = field(default_factory=dict[str, First])

    def add(self, where: str, reason: str, detail: str = "", times: int = 1) -> None:
        """One more, or several of which this is the first."""
        count, first, found = self.by_reason.get(reason, First(0, where, detail))
        self.by_reason[reason] = First(count + times, first, found)

    def __len__(self) -> int:
        return sum(first.times for first in self.by_reason.values())

    def counts(self) -> dict[str, int]:
        """Number by reason."""
        return {reason: first.times for reason, first in self.by_reason.items()}

    def said(self, total: int) -> list[str]:
        """One line where something was left out, else none."""
        if not self.by_reason:
            return []
        parts = [f"{count} × {reason} (first: {where})" for reason, (count, where, _) in self.by_reason.items()]
        return [f"{len(self)} of {total} images left out: {', '.join(parts)}"]

    def check(self, source: Path | str, on_bad: Literal["error", "skip"]) -> None:
        """Nothing, if there is none or they are to be left out.

        Raises:
            DataProblem: names the first, and how many more there are.
        """
        if not self.by_reason or on_bad == "skip":
            return
        reason, (_, where, detail) = next(iter(self.by_reason.items()))
        more = len(self) - 1
        raise DataProblem(
            f"an image cannot be used: {where}: {reason}" + (f" ({detail})" if detail else ""),
            f"it lies in {source}" + (f"; {more} more such or other" if more else ""),
            "Mend or remove it, or leave bad images out with --set data.on_bad=skip.",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {reason: list(first) for reason, first in self.by_reason.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rejects:
        """What `to_json` wrote."""
        return cls({reason: First(*first) for reason, first in data.items()})
