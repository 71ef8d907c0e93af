"""A folder of records with its rendered tables, kept together: written anew, or held against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError, EnvironmentProblem
from bench.figures import files
from bench.record import load_all
from leaderboard import page
from leaderboard.formats import FORMATS, Made, make

RUNS = "runs"
"""Folder of the records within."""
STEM = "leaderboard"


def update(folder: Path, arrange: Callable[..., Made] = make) -> list[Path]:
    """Write `leaderboard.md`, `.csv`, `.tex`, `.json` and `.html` from the records in `<folder>/runs`.

    Raises:
        EnvironmentProblem: there are no records, one of them is broken, or a file cannot be written.
    """
    made = _made(folder, arrange)
    paths = [folder / f"{STEM}.{name}" for name in FORMATS]
    for name, path in zip(FORMATS, paths, strict=True):
        try:
            files.replace(path, FORMATS[name](made).encode())
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write {path}", str(error), "Give a folder that can be written."
            ) from error
    return paths


def stale(folder: Path, arrange: Callable[..., Made] = make) -> list[str]:
    """Names of the files that are absent or say something else than the records; other plotly versions are the same.

    Raises:
        EnvironmentProblem: there are no records, or one of them is broken.
    """
    made = _made(folder, arrange)
    found: list[str] = []
    for name, render in FORMATS.items():
        path = folder / f"{STEM}.{name}"
        kept = path.read_text(encoding="utf-8") if path.is_file() else None
        if kept is None or page.without_library(kept) != page.without_library(render(made)):
            found.append(path.name)
    return found


def _made(folder: Path, arrange: Callable[..., Made]) -> Made:
    records, problems = load_all(folder / RUNS)
    if problems or not records:
        raise EnvironmentProblem(
            f"{folder / RUNS}: " + ("a record is broken" if problems else "no records"),
            str(problems[0]) if problems else "rendered tables are held against the records in this folder",
            "Put the records there: bench run … --out " + str(folder / RUNS),
        )
    return arrange(records, problems)


def problem(folder: Path, names: list[str]) -> BenchError:
    """What to say of files that are stale."""
    from bench.errors import CheckFailed

    return CheckFailed(
        f"{folder}: the rendered tables are not those of the records",
        f"they differ: {', '.join(names)}",
        f"`bench leaderboard --update {folder}` writes them anew; look at the difference before you commit it.",
    )
