"""Search for the folder of a task in the directories that `--data-dir` and BENCH_DATA name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.core.errors import AbsentTask, DataProblem, plain
from bench.core.files import regular
from bench.records.data import DataRequest

Trust = Literal["task", "directory", "parent"]
"""What named a directory: `--data-dir` for this very task, any other `--data-dir`, or BENCH_DATA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to search for. Names of folders are in the form that `plain` returns.

    Attributes:
        task: its name, `glue/rte`.
        entries: names in `--data-dir NAME=DIR` that mean this very task; by default its name.
        folders: possible names of the task's folder; the first that exists is used.
        suites: names of a folder that holds one folder for each task of a suite; empty for a task outside a suite.
        others: folders of all tasks of the suite; a folder with such a name belongs to that task alone.
        beside: whether BENCH_DATA may hold the task's folder itself, and not only the suite's.
        holds: whether the content of a folder with any other name, given by `--data-dir`, is that of the task.
        expected: what was expected, for errors.
        how: what to do next, for errors.
    """

    task: str
    folders: tuple[str, ...]
    entries: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    beside: bool = True
    holds: Callable[[Path], bool] = lambda folder: False
    expected: str
    how: str


def name_of(directory: Path) -> str:
    """Return the name of a folder: of `.` that of the current one, of a link its own."""
    return Path(os.path.abspath(directory)).name  # noqa: PTH100


def listing(folder: Path) -> list[Path]:
    """List a folder, sorted by name; a `DataProblem` says that it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataProblem(f"data directory {folder} cannot be read", str(error), "Fix its permissions.") from error


def files_below(folder: Path) -> list[Path]:
    """Return every file below a folder, sorted; an EnvironmentProblem names a pipe or a device among them."""
    return sorted(regular(path) for path in folder.rglob("*") if path.exists() and not path.is_dir())


def _child(directory: Path, name: str) -> Path | None:
    """Return the folder in `directory` whose `plain` name is `name`; None if there is none."""
    folders = [path for path in listing(directory) if plain(path.name) == name and path.is_dir()]
    if len(folders) > 1:
        names = ", ".join(path.name for path in folders)
        raise DataProblem(f"several folders in {directory} could be '{name}'", names, "Name one of them.")
    return folders[0] if folders else None


def find_folder(wanted: Wanted, request: DataRequest) -> Path | None:
    """Return the folder of a task; None if no directory was named for it.

    Raises:
        AbsentTask: directories are named, and none of them holds the task.
        DataProblem: a named directory does not exist.
    """
    named = _named(wanted, request)
    for directory, trust in named:
        if not directory.is_dir():
            kind = "is not a directory" if directory.exists() else "does not exist"
            raise DataProblem(f"data directory {directory} {kind}", f"asked for {wanted.task}", wanted.how)
        if folder := _task_folder(directory, wanted, trust):
            return folder
    searched = [directory for directory, _ in named]
    if not named and request.parent and request.parent.is_dir():
        if folder := _task_folder(request.parent, wanted, "parent"):
            return folder
        if wanted.suites and _is_suite(request.parent, wanted):
            searched = [request.parent]
    if searched:
        places = ", ".join(map(str, searched))
        raise AbsentTask(f"no {wanted.task} in {places}", f"expected {wanted.expected} there", wanted.how)
    return None


def _named(wanted: Wanted, request: DataRequest) -> list[tuple[Path, Trust]]:
    """List the directories named for this task, then for its suite, then for all tasks."""
    order: list[tuple[str, Trust]] = [(plain(entry), "task") for entry in wanted.entries or (wanted.task,)]
    order.extend((suite, "directory") for suite in (*wanted.suites, ""))
    dirs = [(plain(name or ""), directory) for name, directory in request.dirs]
    return [(directory, trust) for entry, trust in order for name, directory in dirs if name == entry]


def _task_folder(directory: Path, wanted: Wanted, trust: Trust) -> Path | None:
    """Return the task's folder below `directory`, or `directory` itself if it is that; None if neither."""
    parents = [_child(directory, suite) for suite in wanted.suites]
    if trust != "parent" or wanted.beside:
        parents.append(directory)
    for parent in filter(None, parents):
        for name in wanted.folders:
            if folder := _child(parent, name):
                return folder
    name = plain(name_of(directory))
    if name in wanted.folders or trust == "task":
        return directory
    # a folder with any other name may hold the task, unless the name is that of another task
    return directory if trust == "directory" and name not in wanted.others and wanted.holds(directory) else None


def _is_suite(directory: Path, wanted: Wanted) -> bool:
    names = {*wanted.suites, *(wanted.others if wanted.beside else ())}
    return plain(name_of(directory)) in names or any(_child(directory, name) for name in names)
