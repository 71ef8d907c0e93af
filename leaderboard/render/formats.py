"""A leaderboard and the formats it is written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.core.errors import BenchError
from bench.records.record import Record
from leaderboard.render import csv_export, json_export, latex, markdown, page
from leaderboard.tables.build import build_tables
from leaderboard.tables.published import with_published
from leaderboard.tables.table import Table

BASELINE = "full"
"""Default baseline: the method that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """Tables, the records they show, and the records that could not be read."""

    tables: Sequence[Table]
    records: Sequence[Record]
    problems: Sequence[BenchError] = ()

    @property
    def trials(self) -> int:
        """Number of runs that only served to select a learning rate; no table shows them."""
        return sum(bool(run.spec.holdout) for run in self.records)

    def to_json(self) -> json_export.JsonObject:
        """The leaderboard as JSON values."""
        return json_export.leaderboard_json(self.tables, self.records, self.problems)


def build_leaderboard(
    records: Sequence[Record],
    problems: Sequence[BenchError] = (),
    *,
    baseline: str | None = BASELINE,
    published: bool = False,
) -> Leaderboard:
    """Build the tables of `records`, compared with `baseline` and, if `published`, with scores from papers."""
    tables = build_tables(records, baseline=baseline)
    if published:
        tables = with_published(tables, records)
    return Leaderboard(tables=tables, records=records, problems=problems)


FORMATS: dict[str, Callable[[Leaderboard], str]] = {
    "md": lambda leaderboard: markdown.render_tables(leaderboard.tables, trials=leaderboard.trials, costs=True),
    "csv": lambda leaderboard: csv_export.render(leaderboard.tables),
    "tex": lambda leaderboard: latex.render(leaderboard.tables),
    "json": lambda leaderboard: json_export.dump(leaderboard.to_json()),
    "html": lambda leaderboard: page.render(leaderboard.to_json()),
}
"""Name of a format, which is also its file extension, and the function that renders it."""
