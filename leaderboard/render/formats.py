"""The formats of a leaderboard by name, all from the same tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.errors import BenchError
from bench.records.record import Record
from leaderboard.render import board, latex, markdown, page, tidy
from leaderboard.tables.published import with_published
from leaderboard.tables.score import tables
from leaderboard.tables.table import Table

BASELINE = "full"
"""Method that the others are held against where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Tables, the records they are of, and what could not be read."""

    tables: Sequence[Table]
    records: Sequence[Record]
    problems: Sequence[BenchError] = ()

    @property
    def trials(self) -> int:
        """Runs that chose a learning rate, which are not shown."""
        return sum(bool(run.spec.holdout) for run in self.records)

    def board(self) -> dict[str, Any]:
        """The leaderboard as plain JSON values."""
        return board.board(self.tables, self.records, self.problems)


def make(
    records: Sequence[Record],
    problems: Sequence[BenchError] = (),
    *,
    baseline: str | None = BASELINE,
    published: bool = False,
) -> Made:
    """The tables of `records`, held against `baseline`, with papers' figures where asked for."""
    made = tables(records, baseline=baseline)
    if published:
        made = with_published(made, records)
    return Made(tables=made, records=records, problems=problems)


FORMATS: dict[str, Callable[[Made], str]] = {
    "md": lambda made: markdown.render_tables(made.tables, trials=made.trials, costs=True),
    "csv": lambda made: tidy.render(made.tables),
    "tex": lambda made: latex.render(made.tables),
    "json": lambda made: board.text(made.board()),
    "html": lambda made: page.render(made.board()),
}
"""Name, which is also the ending of a file, and how it is written."""
