"""A leaderboard, the formats it is written in, and folders of records with the tables rendered from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import BenchError, CheckFailed, EnvironmentProblem
from bench.core.files import write_atomic
from bench.records.record import Record, load_all
from leaderboard.render import csv_export, json_export, latex, markdown, page
from leaderboard.tables.build import build_tables
from leaderboard.tables.examples import Examples
from leaderboard.tables.published import with_published
from leaderboard.tables.table import Table

BASELINE = "full"
"""Default baseline: the method that the others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """Tables, the records they show, and the records that could not be read."""

    tables: Sequence[Table]
    records: Sequence[Record]
    problems: Sequence[BenchError]

    def to_json(self) -> json_export.JsonObject:
        return json_export.leaderboard_json(self.tables, self.records, self.problems)


def build_leaderboard(
    records: Sequence[Record],
    problems: Sequence[BenchError] = (),
    *,
    baseline: str = BASELINE,
    best: bool = False,
    published: bool = False,
    examples: Examples | None = None,
) -> Leaderboard:
    """Build the tables of `records`, compared with `baseline` and, if `published`, with scores from papers.

    With `best` the best evaluation during training stands beside every score. With `examples` intervals are over these
    too; files of theirs that cannot be used are added to the problems.
    """
    examples = examples or Examples()
    tables = build_tables(records, baseline=baseline, best=best, examples=examples)
    if published:
        tables = with_published(tables, records)
    return Leaderboard(tables=tables, records=records, problems=[*problems, *examples.problems])


FORMATS: dict[str, Callable[[Leaderboard], str]] = {
    "md": lambda board: markdown.render_tables(board.tables, trials=markdown.trials(board.records), costs=True),
    "csv": lambda board: csv_export.render(board.tables),
    "tex": lambda board: latex.render(board.tables),
    "json": lambda board: json_export.dump(board.to_json()),
    "html": lambda board: page.render(board.to_json()),
}
"""Name of a format, which is also its file extension, and the function that renders it."""


def update(folder: Path) -> list[Path]:
    """Write `leaderboard.md`, `.csv`, `.tex`, `.json` and `.html` from the records in `<folder>/runs`.

    Raises:
        EnvironmentProblem: there are no records, a record is broken, or a file cannot be written.
    """
    leaderboard = _read(folder)
    paths = _paths(folder)
    for name, path in paths.items():
        try:
            write_atomic(path, FORMATS[name](leaderboard).encode())
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {path}", str(error), "Make the folder writable.") from error
    return [*paths.values()]


def check(folder: Path) -> None:
    """Check that the files that `update` writes are current; the version of plotly in the page does not matter.

    Raises:
        CheckFailed: some files are absent or differ; it names them.
        EnvironmentProblem: there are no records, or a record is broken.
    """
    leaderboard = _read(folder)
    outdated: list[str] = []
    for name, path in _paths(folder).items():
        stored = path.read_text(encoding="utf-8") if path.is_file() else ""
        if page.without_library(stored) != page.without_library(FORMATS[name](leaderboard)):
            outdated.append(path.name)
    if outdated:
        raise CheckFailed(
            f"{folder}: the rendered tables do not match the records",
            f"absent or different: {', '.join(outdated)}",
            f"Run `bench leaderboard --update {folder}` and check the difference before you commit it.",
        )


def _paths(folder: Path) -> dict[str, Path]:
    return {name: folder / f"leaderboard.{name}" for name in FORMATS}


def _read(folder: Path) -> Leaderboard:
    runs = folder / "runs"
    records, problems = load_all(runs)
    if problems or not records:
        raise EnvironmentProblem(
            f"{runs}: " + ("a record is broken" if problems else "no records"),
            str(problems[0]) if problems else "tables are rendered from the records in this folder",
            f"Put the records there: bench run … --out {runs}",
        )
    return build_leaderboard(records, examples=Examples(runs))
