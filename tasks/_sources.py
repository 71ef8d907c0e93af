"""Where GLUE comes from: a directory of the user's, else the hub, else the embedded generator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bench.data import Corpus, DataRequest, Example
from bench.errors import AbsentTask, DataProblem
from tasks._examples import examples
from tasks._folder import holds_splits, listing, normal, read_folder
from tasks._glue_schema import SCHEMAS

SUITE = "glue"
HOW = "Name one with --data-dir DIR: a folder that holds glue/CoLA and so on, that folder itself, or one task's folder."
Trust = Literal["task", "directory", "parent"]
"""Who named a directory: an entry for this very task, any other `--data-dir`, or BENCH_DATA."""


def open_corpus(cell: str, request: DataRequest) -> Corpus:
    """The corpus of one GLUE task from the first source that the request allows and that answers.

    Raises:
        AbsentTask: a directory of the user's is a good one but does not hold this task.
        DataProblem: nothing is there, or a file is malformed.
    """
    if request.data in ("auto", "dir") and (folder := find_folder(cell, request)):
        return _from_folder(cell, folder)
    if request.data == "dir":
        known = "--data dir was asked; neither --data-dir nor BENCH_DATA names one that holds it"
        raise DataProblem(f"no directory with data for {SUITE}/{cell}", known, HOW)
    if request.data == "embedded":
        return _embedded(cell)
    lost = request.parent is not None and not request.parent.is_dir()
    notes = ("BENCH_DATA names a folder that is not there",) if lost and request.data == "auto" else ()
    return _from_hub(cell, fall_back=request.data == "auto", notes=notes)


def find_folder(cell: str, request: DataRequest) -> Path | None:
    """The folder of a task among the directories the user named; None if none was named for it.

    Raises:
        AbsentTask: directories are named and none of them holds the task.
        DataProblem: a named directory is not there.
    """
    named = _entries(cell, request)
    for directory, trust in named:
        if not directory.is_dir():
            kind = "is not a directory" if directory.exists() else "does not exist"
            raise DataProblem(f"data directory {directory} {kind}", f"asked for {SUITE}/{cell}", HOW)
        if found := task_folder(directory, cell, trust=trust):
            return found
    if named:
        raise _absent(cell, [directory for directory, _ in named])
    if request.parent and request.parent.is_dir():
        if found := task_folder(request.parent, cell, trust="parent"):
            return found
        if _is_suite(request.parent):
            raise _absent(cell, [request.parent])
    return None


def task_folder(directory: Path, cell: str, *, trust: Trust) -> Path | None:
    """The task's folder below `directory`, or `directory` itself if it is that; None if neither."""
    suite = _child(directory, SUITE)
    for parent in (suite, directory):
        if parent and (found := _child(parent, cell)):
            return found
    own = _name(directory)
    if own == cell or trust == "task":
        return directory
    # a folder with a name of the user's own is the task's if it holds splits, but never another task's
    return directory if trust == "directory" and own not in SCHEMAS and holds_splits(directory, cell) else None


def _entries(cell: str, request: DataRequest) -> list[tuple[Path, Trust]]:
    """Directories that speak of this task: those named for it, for the suite, for anything."""
    by_name: dict[str, list[Path]] = {}
    for name, directory in request.dirs:
        by_name.setdefault(normal(name or ""), []).append(directory)
    order: list[tuple[str, Trust]] = [
        (f"{SUITE}/{cell}", "task"),
        (cell, "task"),
        (SUITE, "directory"),
        ("", "directory"),
    ]
    return [(directory, trust) for name, trust in order for directory in by_name.get(name, [])]


def _is_suite(directory: Path) -> bool:
    names = {SUITE, *SCHEMAS}
    return _name(directory) in names or any(_child(directory, name) for name in names)


def _name(directory: Path) -> str:
    return normal(Path(os.path.abspath(directory)).name)  # noqa: PTH100 - `.` has a name, a link keeps its own


def _child(directory: Path, name: str) -> Path | None:
    found = [path for path in listing(directory) if normal(path.name) == name and path.is_dir()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataProblem(f"several folders in {directory} could be '{name}'", names, "Name one of them.")
    return found[0] if found else None


def _absent(cell: str, directories: Sequence[Path]) -> AbsentTask:
    places = ", ".join(map(str, directories))
    return AbsentTask(f"no {SUITE}/{cell} in {places}", f"expected a folder {SCHEMAS[cell].folder} there", HOW)


# the three sources


def _from_folder(cell: str, folder: Path) -> Corpus:
    schema = SCHEMAS[cell]
    splits = read_folder(folder, cell)
    skipped = sum(records.skipped for files in splits.values() for records in files)
    notes = (f"{SUITE}/{cell}: {skipped} rows with too few columns left out",) if skipped else ()
    name = Path(os.path.abspath(folder)).name  # noqa: PTH100
    read = {split: [x for r in files for x in examples(r, schema.labels)] for split, files in splits.items()}
    return _corpus(read, source="directory", revision=name, notes=notes)


def _from_hub(cell: str, *, fall_back: bool, notes: tuple[str, ...]) -> Corpus:
    from tasks._hub import REVISION, NoHub, read_hub

    schema = SCHEMAS[cell]
    names = {split: split.replace("dev", "validation") for split in schema.splits}
    try:
        found = read_hub(cell, tuple(names.values()), schema.hub)
    except NoHub as error:
        if fall_back:
            note = f"{error.what}; using the embedded GLUE; --data-dir DIR for the real corpora"
            return _embedded(cell, notes=(*notes, note))
        raise DataProblem(f"{SUITE}/{cell} cannot be had from the hub", error.what, HOW) from error
    read = {split: [x for r in found[name] for x in examples(r, schema.labels)] for split, name in names.items()}
    return _corpus(read, source="hub", revision=REVISION, notes=notes)


def _embedded(cell: str, *, notes: tuple[str, ...] = ()) -> Corpus:
    from tasks._generated import VERSION, generate

    splits = {split: [Example(*row) for row in rows] for split, rows in generate(cell).items()}
    return _corpus(splits, source="embedded", revision=str(VERSION), notes=notes)


def _corpus(
    splits: dict[str, list[Example]],
    *,
    source: Literal["directory", "hub", "embedded"],
    revision: str,
    notes: tuple[str, ...] = (),
) -> Corpus:
    evaluation = {name: rows for name, rows in splits.items() if name != "train"}
    return Corpus(train=splits["train"], evaluation=evaluation, source=source, revision=revision, notes=notes)
