"""The base of every task whose examples are texts or pairs of texts; one from another package builds on it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.api.task import Task
from bench.records.data import Dataset

if TYPE_CHECKING:
    from lightning import LightningDataModule

    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec


class TextTask(Task):
    """A task of `bench.records.data.Example`s: a subclass sets `spec` and implements `open`."""

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> LightningDataModule:
        """Tokenised, length-grouped batches of the dataset."""
        from tasks.text.datamodule import TextDataModule

        return TextDataModule(self.spec, dataset, backbone, spec)
