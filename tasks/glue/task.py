"""GLUE: nine tasks of English sentence understanding, from a directory, the hub or an embedded generator.

Wang et al., arXiv 1804.07461. The dev sets are reported, as GLUE's test labels are mostly not public. Labels are class
indices in the order of the Hugging Face dataset `nyu-mll/glue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bench.api.task import TaskSpec
from bench.core.errors import DataProblem, UsageError, did_you_mean
from bench.core.hub import HubUnavailable
from bench.records.data import DataRequest, Dataset, SourceKind
from tasks.glue.files import REVISION, Examples, Splits, holds_splits, read_folder, read_hub
from tasks.glue.generated import VERSION, generate
from tasks.glue.schema import SCHEMAS
from tasks.io.directories import Wanted, find_folder, name_of
from tasks.text.task import TextTask

HOW = "Name one with --data-dir DIR: a folder that holds glue/CoLA and so on, that folder itself, or one task's folder."


class GLUE(TextTask):
    """One GLUE task by its name within the suite: `GLUE("rte")`.

    Raises:
        UsageError: no such task.
    """

    members: ClassVar[tuple[str, ...]] = tuple(SCHEMAS)

    def __init__(self, member: str) -> None:
        if member not in SCHEMAS:
            hint = f"{did_you_mean(member, SCHEMAS)} `bench list tasks` describes them.".strip()
            raise UsageError(f"unknown GLUE task '{member}'", f"known: {', '.join(SCHEMAS)}", hint)
        self.schema = SCHEMAS[member]
        self.member = member
        self.spec = TaskSpec(
            name=f"glue/{member}",
            version=1,
            modality="text",
            num_classes=len(self.schema.labels),
            labels=self.schema.labels,
            metrics=self.schema.metrics,
            primary=self.schema.primary or self.schema.metrics,
            note=self.schema.note,
        )

    def open(self, request: DataRequest) -> Dataset:
        """Read and check train and the evaluation splits, from the first source that is allowed and answers.

        Raises:
            AbsentTask: a directory of the user's is a good one but does not hold this task.
            DataProblem: nothing is there, or a file is malformed; the error names file and line.
        """
        if request.data in ("auto", "dir") and (folder := find_folder(self._wanted(), request)):
            return self._dataset(read_folder(folder, self.member), source="directory", revision=name_of(folder))
        if request.data == "dir":
            known = "--data dir was given; neither --data-dir nor BENCH_DATA names one that holds it"
            raise DataProblem(f"no directory with data for {self.spec.name}", known, HOW)
        notes: list[str] = []
        if request.data != "embedded":
            if request.data == "auto" and request.parent is not None and not request.parent.is_dir():
                notes.append("BENCH_DATA names a folder that does not exist")
            try:
                return self._dataset(read_hub(self.member), source="hub", revision=REVISION, notes=notes)
            except HubUnavailable as error:
                if request.data == "hub":
                    raise DataProblem(f"{self.spec.name} cannot be loaded from the hub", error.what, HOW) from error
                notes.append(f"{error.what}; using the embedded GLUE; --data-dir DIR for the real corpora")
        splits = {split: Examples(rows) for split, rows in generate(self.member).items()}
        return self._dataset(splits, source="embedded", revision=VERSION, notes=notes)

    @classmethod
    def text_columns(cls, task: TaskSpec, reading: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
        """Return the names of GLUE's own files and of the hub's."""
        schema = SCHEMAS[task.name.partition("/")[2]]
        return [schema.tsv[:-1], schema.hub[:-1]]

    def _wanted(self) -> Wanted:
        return Wanted(
            task=self.spec.name,
            entries=(self.spec.name, self.member),
            folders=(self.member,),
            suites=("glue",),
            others=frozenset(SCHEMAS),
            holds=lambda folder: holds_splits(folder, self.member),
            expected=f"a folder {self.schema.folder}",
            how=HOW,
        )

    def _dataset(self, splits: Splits, *, source: SourceKind, revision: str, notes: Sequence[str] = ()) -> Dataset:
        if left_out := sum(examples.left_out for examples in splits.values()):
            notes = [*notes, f"{self.spec.name}: {left_out} rows with too few columns left out"]
        return Dataset(
            train=splits["train"].rows,
            evaluation={split: splits[split].rows for split in self.schema.evaluation},
            source=source,
            revision=revision,
            notes=tuple(notes),
        )
