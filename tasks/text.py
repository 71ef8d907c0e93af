"""The base of every task whose examples are texts or pairs of texts; one from another package builds on it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.data import Corpus
from bench.task import Task

if TYPE_CHECKING:
    from lightning import LightningDataModule

    from bench.backbones import Backbone
    from bench.spec import RunSpec


class TextTask(Task):
    """A task of `bench.data.Example`s: a subclass sets `spec` and implements `open`."""

    def datamodule(self, corpus: Corpus, backbone: Backbone, spec: RunSpec) -> LightningDataModule:
        """Tokenised, length-grouped batches of the corpus."""
        from tasks._text import TextDataModule

        return TextDataModule(self.spec, corpus, backbone, spec)
