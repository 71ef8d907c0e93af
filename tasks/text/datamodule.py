"""Texts and pairs of texts as batches: tokenised once, cached, grouped by length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from bench.api.backbone import Backbone
from bench.api.datamodule import Batch, StepDataModule
from bench.api.task import TaskSpec
from bench.config.sections import TaskConfig
from bench.core.errors import DataProblem
from bench.records.data import Dataset, Example
from bench.records.spec import RunSpec
from tasks.text.tokens import Tokens, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WARN_UNKNOWN, MOST_UNKNOWN = 0.2, 0.5
"""Share of train's tokens that the tokenizer does not know: above the first a warning, above the second an error."""
MOST_CUT = 0.01
"""Share of a split's examples that may be cut without a warning."""


class TextDataModule(StepDataModule[Iterable[Example], Tokens]):
    """Feeds one run of one text task.

    Attributes:
        unknown: share of unknown tokens of the training examples; those that begin, end and separate do not count.

    Raises:
        DataProblem: more than half of them are unknown.
    """

    def __init__(self, task: TaskSpec, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> None:
        self.options = spec.options.task_as(TaskConfig)
        self.tokenizer = backbone.tokenizer()
        self._key = f"{dataset.hash}{backbone.weights_hash}"
        super().__init__(task, dataset, spec)
        is_pair = next(iter(cast("Iterable[Example]", dataset.train))).text_pair is not None
        added = len(self.train.lengths) * self.tokenizer.num_special_tokens_to_add(is_pair)
        self.unknown = int(self.train.unknown.sum()) / max(1, int(self.train.lengths.sum()) - added)
        if self.unknown > MOST_UNKNOWN:
            known = f"{self.unknown:.0%} of the tokens of {task.name} are unknown to that of {backbone.name}"
            todo = "Choose another backbone, or put the tokenizer's files into its folder: tokenizer.json or vocab.txt."
            raise DataProblem("the tokenizer does not know these texts", known, todo)

    def warnings(self) -> list[str]:
        """Add how many examples of each split were cut, where it is a hundredth or more."""
        lines = super().warnings()
        for name, split in (("train", self.train), *self.evaluation.items()):
            cut, of = int(np.count_nonzero(split.cut)), len(split.cut)
            if cut and cut >= MOST_CUT * of:
                limit = f"task.max_length={self.options.max_length}"
                lines.append(f"{cut:,} of {of:,} texts of {name} are longer than {limit} and are cut")
        if self.unknown > WARN_UNKNOWN:
            lines.append(f"{self.unknown:.0%} of the tokens of train are unknown to the tokenizer")
        return lines

    def report(self) -> dict[str, object]:
        """Add the share of unknown tokens, if there are any."""
        return {**super().report(), **({"unknown_tokens": self.unknown} if self.unknown else {})}

    def load(self, rows: Iterable[Example], name: str) -> Tokens:
        return tokenise(rows, self.tokenizer, key=self._key + name, max_length=self.options.max_length)

    def collate(self, split: Tokens, index: np.ndarray, weight: float = 1.0, step: int = -1) -> Batch:
        inputs = padded(split, index, self.tokenizer)
        dtype = torch.int64 if self.task.num_classes else torch.float32
        labels = torch.tensor(split.labels[index], dtype=dtype)
        return Batch(inputs=inputs, labels=labels, index=torch.from_numpy(index.copy()), weight=weight, step=step)


def padded(tokens: Tokens, index: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Return the examples `index` (B,) as a network reads them, (B, T) each, T being the length of the longest."""
    rows = [tokens.row(i) for i in index]
    width = max(len(ids) for ids, _ in rows)
    ids = np.full((len(rows), width), tokenizer.pad_token_id or 0, dtype=np.int64)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for i, (row, kind) in enumerate(rows):
        ids[i, : len(row)], types[i, : len(row)], mask[i, : len(row)] = row, kind, 1
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = torch.from_numpy(types)
    return inputs
