"""A folder of records with tables rendered from them: update the tables, or check that they are current."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import CheckFailed, EnvironmentProblem
from bench.core.files import write_atomic
from bench.records.record import load_all
from leaderboard.render import page
from leaderboard.render.formats import FORMATS, Leaderboard, build_leaderboard

RUNS = "runs"
"""Subfolder of the records."""
STEM = "leaderboard"


def update(folder: Path) -> list[Path]:
    """Write `leaderboard.md`, `.csv`, `.tex`, `.json` and `.html` from the records in `<folder>/runs`.

    Raises:
        EnvironmentProblem: there are no records, a record is broken, or a file cannot be written.
    """
    leaderboard = _load(folder)
    paths = [folder / f"{STEM}.{name}" for name in FORMATS]
    for name, path in zip(FORMATS, paths, strict=True):
        try:
            write_atomic(path, FORMATS[name](leaderboard).encode())
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {path}", str(error), "Make the folder writable.") from error
    return paths


def check(folder: Path) -> None:
    """Check that the files that `update` writes are current; the version of plotly in the page does not matter.

    Raises:
        CheckFailed: some files are absent or differ; it names them.
        EnvironmentProblem: there are no records, or a record is broken.
    """
    leaderboard = _load(folder)
    outdated: list[str] = []
    for name, render in FORMATS.items():
        path = folder / f"{STEM}.{name}"
        stored = path.read_text(encoding="utf-8") if path.is_file() else None
        if stored is None or page.without_library(stored) != page.without_library(render(leaderboard)):
            outdated.append(path.name)
    if outdated:
        raise CheckFailed(
            f"{folder}: the rendered tables do not match the records",
            f"absent or different: {', '.join(outdated)}",
            f"Run `bench leaderboard --update {folder}` and check the difference before you commit it.",
        )


def _load(folder: Path) -> Leaderboard:
    records, problems = load_all(folder / RUNS)
    if problems or not records:
        raise EnvironmentProblem(
            f"{folder / RUNS}: " + ("a record is broken" if problems else "no records"),
            str(problems[0]) if problems else "tables are rendered from the records in this folder",
            f"Put the records there: bench run … --out {folder / RUNS}",
        )
    return build_leaderboard(records)
