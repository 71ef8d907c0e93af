"""AdapterDrop: bottleneck adapters that the first n blocks do without, in training and after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from bench.api.method import Batch
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from methods.adapterdrop.config import AdapterDropConfig
from methods.adapterdrop.prefix_cache import MIB, Prefix
from methods.common.adapters import Adapters

STREAM = 2010
"""Keeps the drawn n apart from what else is drawn from seed and step."""


class AdapterDrop(Adapters):
    """Adapters that are dropped from the first blocks; equations are in `AdapterDropConfig`."""

    Config: ClassVar[type[MethodConfig]] = AdapterDropConfig

    config: AdapterDropConfig

    def lowest(self, blocks: int) -> int:
        """Block n, or in the robust form the first.

        Raises:
            UsageError: no block would have an adapter.
        """
        n = self.config.n or 0
        if n >= blocks:
            raise UsageError(
                f"method.n={n} leaves no adapter",
                f"this backbone has {blocks} blocks",
                f"Use 0 to {blocks - 1}, or leave it out for the robust form.",
            )
        self.skips_parameters = self.config.n is None
        return n

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt its blocks."""
        super().adapt(batch)
        self.prefix = Prefix(self.backbone, self.blocks, self.config.n or 0)
        self._refusal = ""

    def on_train_start(self) -> None:
        """Compute what the frozen blocks give."""
        if self.config.n and self.config.cache:
            self._refusal = self.prefix.fill(self, self.config.cache_mib * MIB)
            self.cache_bytes = self.prefix.bytes

    def on_train_end(self) -> None:
        """Give its memory back."""
        self.prefix.clear()

    def warnings(self) -> list[str]:
        """Why the frozen blocks were computed again in every epoch, where they were to be cached."""
        return [f"the frozen blocks were not cached: {self._refusal}"] if self._refusal else []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted loss, without the adapters that this step drops."""
        with self.dropping(self.drawn(self.trainer.global_step)), self.prefix.replaying(batch):
            return super().training_step(batch, batch_idx)

    def drawn(self, step: int) -> int:
        """Blocks without adapters at a step: a function of seed and step, for all devices and micro batches alike."""
        if self.config.n is not None:
            return self.config.n
        return int(np.random.default_rng([self.seed, step, STREAM]).integers(len(self.blocks)))

    def sweep(self) -> Iterator[dict[str, Any]]:
        """Every n from the trained one to L − 1."""
        return self.drops() if self.config.sweep else iter(())
