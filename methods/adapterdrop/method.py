"""AdapterDrop: bottleneck adapters that the first n blocks do without."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bench.api.method import Batch
from bench.core.errors import UsageError
from methods.adapter.method import Adapter
from methods.adapterdrop.config import AdapterDropConfig
from methods.adapterdrop.prefix_cache import MIB, PrefixCache

STREAM = 2010
"""Separates the drawn n from everything else that is drawn from seed and step."""


class AdapterDrop(Adapter):
    """Drops the adapters of the first blocks (see `AdapterDropConfig`)."""

    Config = AdapterDropConfig
    config: AdapterDropConfig

    def lowest(self, blocks: int) -> int:
        """Return n, or 0 in the robust form; raises UsageError if no block would have an adapter."""
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
        super().adapt(batch)
        self.prefix = PrefixCache(self.backbone, self.blocks, self.config.n or 0)
        self._not_cached = ""

    def on_train_start(self) -> None:
        if self.config.n and self.config.cache:
            self._not_cached = self.prefix.fill(self, self.config.cache_mib * MIB)
            self.cache_bytes = self.prefix.bytes

    def on_train_end(self) -> None:
        self.prefix.clear()

    def warnings(self) -> list[str]:
        """Say why the frozen blocks were computed again in every epoch instead of cached."""
        return [f"the frozen blocks were not cached: {self._not_cached}"] if self._not_cached else []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted loss without the adapters that this step drops."""
        with self.dropping(self.draw_n(self.trainer.global_step)), self.prefix.replaying(batch):
            return super().training_step(batch, batch_idx)

    def draw_n(self, step: int) -> int:
        """Return n of a step, from seed and step: the same for all devices and micro batches."""
        if self.config.n is not None:
            return self.config.n
        return int(np.random.default_rng([self.seed, step, STREAM]).integers(len(self.blocks)))
