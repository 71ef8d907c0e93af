"""Where GLUE comes from: a directory of the user's, else the hub, else the embedded generator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bench.core.errors import DataProblem
from bench.records.data import DataRequest, Dataset, Example
from tasks.glue.examples import examples
from tasks.glue.folder import holds_splits, read_folder
from tasks.glue.schema import SCHEMAS
from tasks.io.directories import Wanted, find_folder, name_of

SUITE = "glue"
HOW = "Name one with --data-dir DIR: a folder that holds glue/CoLA and so on, that folder itself, or one task's folder."


def open_dataset(member: str, request: DataRequest) -> Dataset:
    """The dataset of one GLUE task from the first source that the request allows and that answers.

    Raises:
        AbsentTask: a directory of the user's is a good one but does not hold this task.
        DataProblem: nothing is there, or a file is malformed.
    """
    if request.data in ("auto", "dir") and (folder := find_folder(_wanted(member), request)):
        return _from_folder(member, folder)
    if request.data == "dir":
        known = "--data dir was asked; neither --data-dir nor BENCH_DATA names one that holds it"
        raise DataProblem(f"no directory with data for {SUITE}/{member}", known, HOW)
    if request.data == "embedded":
        return _embedded(member)
    lost = request.parent is not None and not request.parent.is_dir()
    notes = ("BENCH_DATA names a folder that is not there",) if lost and request.data == "auto" else ()
    return _from_hub(member, fall_back=request.data == "auto", notes=notes)


def _wanted(member: str) -> Wanted:
    return Wanted(
        task=f"{SUITE}/{member}",
        entries=(f"{SUITE}/{member}", member),
        folders=(member,),
        suites=(SUITE,),
        others=frozenset(SCHEMAS),
        holds=lambda folder: holds_splits(folder, member),
        expected=f"a folder {SCHEMAS[member].folder}",
        how=HOW,
    )


# the three sources


def _from_folder(member: str, folder: Path) -> Dataset:
    schema = SCHEMAS[member]
    splits = read_folder(folder, member)
    skipped = sum(records.skipped for files in splits.values() for records in files)
    notes = (f"{SUITE}/{member}: {skipped} rows with too few columns left out",) if skipped else ()
    read = {split: [x for r in files for x in examples(r, schema.labels)] for split, files in splits.items()}
    return _dataset(read, source="directory", revision=name_of(folder), notes=notes)


def _from_hub(member: str, *, fall_back: bool, notes: tuple[str, ...]) -> Dataset:
    from tasks.glue.hub import REVISION, NoHub, read_hub

    schema = SCHEMAS[member]
    names = {split: split.replace("dev", "validation") for split in schema.splits}
    try:
        found = read_hub(member, tuple(names.values()), schema.hub)
    except NoHub as error:
        if fall_back:
            note = f"{error.what}; using the embedded GLUE; --data-dir DIR for the real corpora"
            return _embedded(member, notes=(*notes, note))
        raise DataProblem(f"{SUITE}/{member} cannot be had from the hub", error.what, HOW) from error
    read = {split: [x for r in found[name] for x in examples(r, schema.labels)] for split, name in names.items()}
    return _dataset(read, source="hub", revision=REVISION, notes=notes)


def _embedded(member: str, *, notes: tuple[str, ...] = ()) -> Dataset:
    from tasks.glue.generated import VERSION, generate

    splits = {split: [Example(*row) for row in rows] for split, rows in generate(member).items()}
    return _dataset(splits, source="embedded", revision=str(VERSION), notes=notes)


def _dataset(
    splits: dict[str, list[Example]],
    *,
    source: Literal["directory", "hub", "embedded"],
    revision: str,
    notes: tuple[str, ...] = (),
) -> Dataset:
    evaluation = {name: rows for name, rows in splits.items() if name != "train"}
    return Dataset(train=splits["train"], evaluation=evaluation, source=source, revision=revision, notes=notes)
