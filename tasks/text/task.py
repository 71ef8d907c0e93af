"""The base of every task whose examples are texts or pairs of texts, also of those in other packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.api.task import Task
from bench.records.data import Dataset

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec
    from tasks.text.datamodule import TextDataModule


class TextTask(Task):
    """A task of `bench.records.data.Example`s: a subclass sets `spec` and implements `open`."""

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> TextDataModule:
        """Return a data module that tokenises the examples and groups them by length."""
        from tasks.text.datamodule import TextDataModule

        return TextDataModule(self.spec, dataset, backbone, spec)
