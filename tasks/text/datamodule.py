"""Texts and pairs of texts as batches: tokenised once, cached, grouped by length."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from bench.api.backbone import Backbone
from bench.api.datamodule import Batch, StepDataModule
from bench.api.task import TaskSpec
from bench.config.sections import TaskConfig
from bench.records.data import Dataset, Example
from bench.records.spec import RunSpec
from tasks.text.tokens import Tokens, tokenise

MOST_CUT = 0.01
"""Share of a split's examples that may be cut without a warning."""


class TextDataModule(StepDataModule[Iterable[Example], Tokens]):
    """Feeds one run of one text task."""

    def __init__(self, task: TaskSpec, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> None:
        self.options = spec.options.task_as(TaskConfig)
        self.tokenizer = backbone.tokenizer()
        self._key = f"{dataset.hash}{backbone.weights_hash}"
        super().__init__(task, dataset, spec)

    def warnings(self) -> list[str]:
        """Say how many examples of each split were cut, where it is a hundredth or more."""
        lines: list[str] = []
        for name, split in (("train", self.train), *self.evaluation.items()):
            cut, of = int(np.count_nonzero(split.cut)), len(split.cut)
            if cut and cut >= MOST_CUT * of:
                limit = f"task.max_length={self.options.max_length}"
                lines.append(f"{cut:,} of {of:,} texts of {name} are longer than {limit} and are cut")
        return lines

    def load(self, rows: Iterable[Example], name: str) -> Tokens:
        """Tokenise the rows."""
        return tokenise(rows, self.tokenizer, key=self._key + name, max_length=self.options.max_length)

    def collate(self, split: Tokens, index: np.ndarray, weight: float = 1.0, step: int = -1) -> Batch:
        """Pad the examples to the longest of them."""
        rows = [split.row(i) for i in index]
        width = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), width), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for i, (row, kind) in enumerate(rows):
            ids[i, : len(row)], types[i, : len(row)], mask[i, : len(row)] = row, kind, 1
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if "token_type_ids" in self.tokenizer.model_input_names:
            inputs["token_type_ids"] = torch.from_numpy(types)
        dtype = torch.int64 if self.task.num_classes else torch.float32
        labels = torch.tensor(split.labels[index], dtype=dtype)
        return Batch(inputs=inputs, labels=labels, index=torch.from_numpy(index.copy()), weight=weight, step=step)
