"""The base of every task whose examples are texts or pairs of texts, also of those in other packages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api.task import Task, TaskSpec
from bench.config.sections import NewRowsConfig
from bench.records.data import Dataset

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.api.inputs import InputRequest, NewInputs
    from bench.records.spec import RunSpec
    from tasks.text.datamodule import TextDataModule


class TextTask(Task):
    """A task of `bench.records.data.Example`s: a subclass sets `spec` and implements `open`."""

    InputConfig: ClassVar[type] = NewRowsConfig

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> TextDataModule:
        """Return a data module that tokenises the examples and groups them by length."""
        from tasks.text.datamodule import TextDataModule

        return TextDataModule(self.spec, dataset, backbone, spec)

    @classmethod
    def text_columns(cls, task: TaskSpec, reading: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
        """Return the columns that a run's data had for the text, or for both texts; there may be several names."""
        names = tuple(str(reading[key]) for key in ("text", "text_pair") if reading.get(key) is not None)
        return [names] if names else []

    @classmethod
    def new_inputs(cls, request: InputRequest) -> NewInputs:
        """Open one table of texts, or of pairs of texts."""
        from tasks.table.new_rows import NewRows

        return NewRows(request, cls.text_columns(request.task, request.reading))
