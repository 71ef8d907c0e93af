"""Measure a network: at chosen steps of its training without changing the training, and the rank of its features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from bench.api.batching import Batch
from bench.api.method import Method
from bench.spectra import effective_rank
from bench.spectra.singular import gram_spectrum
from bench.spectra.tracking.sources import modules

if TYPE_CHECKING:
    from bench.experiments.lab import Data

T = TypeVar("T")
CHUNK = 256
"""Examples per forward pass."""
ROWS_PER_DIMENSION = 8
"""Rows of Gaussian features, relative to their width: enough to estimate their covariance."""


class MeasureAtSteps(Callback, Generic[T]):
    """Call `measure(method, data)` before the first step and after each of `steps`; `results` are by step.

    The network is in evaluation mode and without gradients; the random generators are restored afterwards.
    """

    def __init__(self, steps: Iterable[int], measure: Callable[[Method, Data], T]) -> None:
        self.steps, self.measure = frozenset(steps), measure
        self.results: dict[int, T] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Measure after a step; `results` skips the other micro batches of the same step."""
        self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step not in self.steps or step in self.results:
            return
        modes = [(module, module.training) for module in pl_module.modules()]
        pl_module.eval()
        with torch.random.fork_rng(), torch.no_grad():
            self.results[step] = self.measure(cast("Method", pl_module), cast("Any", trainer).datamodule)
        for module, training in modes:  # one by one: frozen normalisations stay in evaluation mode
            module.training = training


def log_spaced_steps(steps: int, count: int) -> list[int]:
    """Return 0, 1, …, `steps`: at most `count` whole numbers; after 0 their logarithms are evenly spaced."""
    return sorted({0, *(round(float(step)) for step in np.geomspace(1, steps, count - 1))})


def sample_indices(total: int, most: int) -> np.ndarray:
    """Return ascending indices of at most `most` of `total` examples, the same for every seed."""
    return np.sort(np.random.default_rng(0).permutation(total)[:most])


def features(method: Method, data: Data, most: int) -> tuple[Tensor, Tensor]:
    """Return features (N, D) below the head and labels (N,) of at most `most` training examples, not augmented.

    Both are on the CPU.
    """
    index = sample_indices(len(data.train.labels), most)
    parts: list[Tensor] = []
    labels: list[Tensor] = []
    for i in range(0, len(index), CHUNK):
        batch = data.collate(data.train, index[i : i + CHUNK])
        inputs = {name: value.to(method.device) for name, value in batch["inputs"].items()}
        parts.append(method.backbone(**inputs).float().cpu())
        labels.append(batch["labels"])
    return torch.cat(parts), torch.cat(labels)


def ranks_by_block(method: Method, batches: Iterable[Batch]) -> list[float]:
    """Return the effective rank of centred token features behind every block, in evaluation mode."""
    moments: dict[str, tuple[int, Tensor, Tensor]] = {}
    """By block: number of rows, their sum (D,), and Σ x·xᵀ (D, D)."""
    mask: Tensor | None = None

    def accumulate(block: str, module: nn.Module, inputs: object, output: Tensor | Sequence[Tensor]) -> None:
        x = (output if isinstance(output, torch.Tensor) else output[0]).detach()
        x = x[mask.bool()] if mask is not None and mask.shape == x.shape[:-1] else x.reshape(-1, x.shape[-1])
        x = x.double()
        count, total, square = moments.get(block, (0, 0.0, 0.0))
        moments[block] = (count + len(x), total + x.sum(0), square + x.mT @ x)

    every, blocks = modules(method)
    handles = [every[block].register_forward_hook(partial(accumulate, block)) for block in blocks]
    network = method.backbone.eval()
    with torch.no_grad():
        for batch in batches:
            mask = batch["inputs"].get("attention_mask")
            network(**batch["inputs"])
    for handle in handles:
        handle.remove()
    return [centred_rank(*moments[block]) for block in blocks]


def centred_rank(count: int, total: Tensor, square: Tensor) -> float:
    """Return the effective rank of centred rows, from their number, sum (D,) and Σ x·xᵀ (D, D)."""
    mean_row = total / count
    values = gram_spectrum(square / count - torch.outer(mean_row, mean_row))
    return float(effective_rank(values, singular_values=True))


def gaussian_rank(width: int) -> float:
    """Return the effective rank of features without structure."""
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS_PER_DIMENSION * width, width, dtype=torch.float64, generator=source)
    return centred_rank(len(rows), rows.sum(0), rows.mT @ rows)
