"""GLUE: nine tasks of English sentence understanding, from a directory, the hub or an embedded generator.

Wang et al., arXiv 1804.07461. The dev sets are reported, as GLUE's test labels are mostly not public. Labels are class
indices in the order of the Hugging Face data set `nyu-mll/glue`.
"""

from __future__ import annotations

from typing import ClassVar

from bench.api.task import TaskSpec
from bench.core.errors import UsageError, did_you_mean
from bench.records.data import DataRequest, Dataset
from tasks.glue.schema import SCHEMAS
from tasks.glue.sources import open_dataset
from tasks.text.task import TextTask


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
        schema = SCHEMAS[member]
        self.member = member
        self.spec = TaskSpec(
            name=f"glue/{member}",
            version=1,
            modality="text",
            num_classes=len(schema.labels),
            metrics=schema.metrics,
            primary=schema.primary,
            note=schema.note,
        )

    def open(self, request: DataRequest) -> Dataset:
        """Read and check train and the evaluation splits.

        Raises:
            AbsentTask: a directory of the user's is a good one but does not hold this task.
            DataProblem: nothing is there, or a file is malformed; the error names file and line.
        """
        return open_dataset(self.member, request)
