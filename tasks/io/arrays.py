"""Images and vectors, which are arrays already, as batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.api.datamodule import Batch, StepDataModule
from bench.api.task import TaskSpec
from bench.records.data import Arrays, Dataset
from bench.records.spec import RunSpec

Prepare = Callable[[np.ndarray, np.ndarray, int], Tensor]
"""Inputs (B, …) as they are stored, example numbers (B,) and step → what the network reads, float32."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Some examples of arrays, which stay where they are.

    Attributes:
        rows: all of them.
        chosen: (N,) the numbers of those that belong to this split.
    """

    rows: Arrays
    chosen: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(N,) or (N, k)."""
        return self.rows.targets[self.chosen]

    @property
    def lengths(self) -> np.ndarray:
        """All alike."""
        return np.zeros(len(self.chosen), dtype=np.int64)

    def take(self, index: np.ndarray) -> ArraySplit:
        """Those examples."""
        return ArraySplit(self.rows, self.chosen[index])


class ArrayDataModule(StepDataModule):
    """Feeds one run of one task of images or vectors.

    Args:
        prepare: gives the inputs of a batch from those of the arrays.
    """

    def __init__(self, task: TaskSpec, dataset: Dataset, spec: RunSpec, prepare: Prepare | None = None) -> None:
        self.prepare: Prepare = prepare or (lambda inputs, index, step: torch.from_numpy(inputs))
        super().__init__(task, dataset, spec)

    def load(self, rows: Arrays, name: str) -> ArraySplit:
        """All examples of the arrays."""
        return ArraySplit(rows, np.arange(len(rows)))

    def collate(self, split: ArraySplit, index: np.ndarray, weight: float = 1.0, step: int = -1) -> Batch:
        """Examples `index`, in training (`step` ≥ 0) as `prepare` changes them at that step."""
        inputs = np.ascontiguousarray(split.rows.inputs[split.chosen[index]])
        dtype = torch.int64 if self.task.num_classes else torch.float32
        return {
            "inputs": {"x": self.prepare(inputs, index, step)},
            "labels": torch.tensor(split.rows.targets[split.chosen[index]], dtype=dtype),
            "index": torch.from_numpy(index.copy()),
            "weight": weight,
            "step": step,
        }
