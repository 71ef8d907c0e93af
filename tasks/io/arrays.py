"""Batches of images and vectors, which are arrays already."""

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
"""Inputs (B, …) as stored, example numbers (B,) and step → input of the network, float32."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Some of the examples of arrays, which are not copied: those with the numbers `chosen` (N,)."""

    rows: Arrays
    chosen: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(N,) or (N, k)."""
        return self.rows.targets[self.chosen]

    @property
    def lengths(self) -> np.ndarray:
        """Zeros: all examples have the same length."""
        return np.zeros(len(self.chosen), dtype=np.int64)

    def take(self, index: np.ndarray) -> ArraySplit:
        return ArraySplit(self.rows, self.chosen[index])


class ArrayDataModule(StepDataModule[Arrays, ArraySplit]):
    """Batches of images or vectors for one run; without `prepare` the network gets them as stored."""

    def __init__(self, task: TaskSpec, dataset: Dataset, spec: RunSpec, prepare: Prepare | None = None) -> None:
        self.prepare: Prepare = prepare or (lambda inputs, index, step: torch.from_numpy(inputs))
        super().__init__(task, dataset, spec)

    def load(self, rows: Arrays, name: str) -> ArraySplit:
        return ArraySplit(rows, np.arange(len(rows)))

    def collate(self, split: ArraySplit, index: np.ndarray, weight: float = 1.0, step: int = -1) -> Batch:
        inputs = np.ascontiguousarray(split.rows.inputs[split.chosen[index]])
        dtype = torch.int64 if self.task.num_classes else torch.float32
        return {
            "inputs": {"x": self.prepare(inputs, index, step)},
            "labels": torch.tensor(split.rows.targets[split.chosen[index]], dtype=dtype),
            "index": torch.from_numpy(index.copy()),
            "weight": weight,
            "step": step,
        }
