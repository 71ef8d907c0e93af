"""A folder of records with its rendered tables, kept together: written anew, or held against each other."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import CheckFailed, EnvironmentProblem
from bench.core.files import write_atomic
from bench.records.record import load_all
from leaderboard.render import page
from leaderboard.render.formats import FORMATS, Made, make

RUNS = "runs"
"""Folder of the records within."""
STEM = "leaderboard"


def update(folder: Path) -> list[Path]:
    """Write `leaderboard.md`, `.csv`, `.tex`, `.json` and `.html` from the records in `<folder>/runs`.

    Raises:
        EnvironmentProblem: there are no records, one of them is broken, or a file cannot be written.
    """
    made = _made(folder)
    paths = [folder / f"{STEM}.{name}" for name in FORMATS]
    for name, path in zip(FORMATS, paths, strict=True):
        try:
            write_atomic(path, FORMATS[name](made).encode())
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {path}", str(error), "Make the folder writable.") from error
    return paths


def check(folder: Path) -> None:
    """Hold these files against the records; a page that only carries another version of plotly is the same page.

    Raises:
        CheckFailed: names those that are absent or say something else.
        EnvironmentProblem: there are no records, or one of them is broken.
    """
    made = _made(folder)
    found: list[str] = []
    for name, render in FORMATS.items():
        path = folder / f"{STEM}.{name}"
        kept = path.read_text(encoding="utf-8") if path.is_file() else None
        if kept is None or page.without_library(kept) != page.without_library(render(made)):
            found.append(path.name)
    if found:
        raise CheckFailed(
            f"{folder}: the rendered tables are not those of the records",
            f"they differ: {', '.join(found)}",
            f"`bench leaderboard --update {folder}` writes them anew; look at the difference before you commit it.",
        )


def _made(folder: Path) -> Made:
    records, problems = load_all(folder / RUNS)
    if problems or not records:
        raise EnvironmentProblem(
            f"{folder / RUNS}: " + ("a record is broken" if problems else "no records"),
            str(problems[0]) if problems else "rendered tables are held against the records in this folder",
            f"Put the records there: bench run … --out {folder / RUNS}",
        )
    return make(records)
