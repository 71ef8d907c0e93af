"""The files that a run keeps beside its record, held against the hashes that the record has of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.core.errors import BenchError, EnvironmentProblem
from bench.core.files import sha256
from bench.records.record import FILE, Record, is_run_id, read

SHOWN = 12
"""Digits of a hash in a message."""


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of files by their path in a run's folder; a name may be of a file, of a folder, or of nothing.

    Hidden files are left out: file managers put some into every folder, and nothing of a run reads them.

    Raises:
        EnvironmentProblem: one is a pipe or a device.
    """
    found: dict[str, str] = {}
    for path in (folder / name for name in names):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            place = file.relative_to(folder)
            if file.exists() and not file.is_dir() and not any(part.startswith(".") for part in place.parts):
                found[place.as_posix()] = sha256(file)
    return found


def is_finished(folder: Path) -> bool:
    """Whether the record in a run's folder is that of a done run, whose files must stay as they are."""
    try:
        return read(folder / FILE).state == "done"
    except BenchError:  # there is none, or it is broken
        return False


def checked(run: Record, folder: Path, name: str) -> Path:
    """Return the path of a file, or a folder of files, that a run kept, after every byte of it was checked.

    If nothing is there, as beside records that were copied alone, nothing is checked. Only a done run lists its files;
    another one may write them again, so they are taken as they are.

    Args:
        folder: the run's folder.
        name: of the file or folder in it.

    Raises:
        EnvironmentProblem: a file is not as the run wrote it, is missing in the folder `name`, or is not of the run.
    """
    path = folder / name
    if not path.exists() or run.state != "done":
        return path
    there = hashes(folder, [name])
    listed = _listed(run, name)
    again = f"Put it back from a copy, or remove {folder} and train the run again."
    for file in sorted(there.keys() | listed.keys()):
        if file not in there:
            known = f"the record of run {run.run_id} has its hash"
            raise EnvironmentProblem(f"{folder / file} is not there, or not a regular file", known, again)
        if file not in listed:
            known = f"the record of run {run.run_id} does not list it"
            todo = f"Remove it. If something of the run is missing then, remove {folder} and train the run again."
            raise EnvironmentProblem(f"{folder / file} is not a file that the run wrote", known, todo)
        if there[file] != listed[file]:
            known = f"its sha256 is {there[file][:SHOWN]}…; the record of run {run.run_id} has {listed[file][:SHOWN]}…"
            raise EnvironmentProblem(f"{folder / file} was changed after the run had written it", known, again)
    return path


def check_named(path: Path) -> None:
    """Check a file or folder that a user named, if it is one that a run kept; raises as `checked`, and as `read`."""
    place = path.resolve()
    folders = (folder for folder in place.parents if is_run_id(folder.name) and (folder / FILE).is_file())
    if folder := next(folders, None):
        run, name = read(folder / FILE), place.relative_to(folder).as_posix()
        if _listed(run, name):
            checked(run, folder, name)


def _listed(run: Record, name: str) -> dict[str, str]:
    """Return what a record lists as `name`, or within a folder of that name."""
    return {file: sha for file, sha in run.files.items() if file == name or file.startswith(f"{name}/")}
