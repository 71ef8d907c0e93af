"""Rank of a ViT's activations after masked autoencoding, by mask ratio and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.config.options import Config, Value, option
from bench.experiments.masked_rank import MaskedRank
from bench.experiments.numbers import integers, listed
from bench.records.record import DoneRecord


@dataclass(frozen=True, kw_only=True)
class MAERankConfig(Config):
    """Network, data and budget."""

    task: str = option("digits", "An image task of `bench list tasks`.")
    ratios: str = option("0.1,0.25,0.5,0.75,0.9", "Shares of the patches that are masked, ascending.")
    width: int = option(64, "D of the ViT.", at_least=1)
    depth: int = option(4, "Its blocks.")
    steps: int = option(1000, "Optimiser steps.", at_least=1)
    seeds: str = option("0,1,2", "A run each.")


class MAERank(MaskedRank):
    """The survey's Section 4.3: features that MAEs learn are approximately low-rank, for which there is no proof yet.

    Measured: effective rank of the centred patch features behind every block, on whole held-out images, after masked
    autoencoding at several ratios, the smallest of which is nearly training without masks, and before it. Checks: at
    the ratio in common use, .75, the last block's features have an effective rank of at most half their width; the
    rank at the highest ratio is not above that at the lowest. Controls: Gaussian features are
    not low-rank, and neither should be those of the untrained network, or it is not pretraining that makes them so.
    """

    place: ClassVar[str] = "Section 4.3, masked autoencoders"
    quick: ClassVar[Mapping[str, Any]] = {"ratios": "0.1,0.75", "seeds": "0", "steps": 100}

    Config = MAERankConfig

    config: MAERankConfig
    usual: ClassVar[float] = 0.75

    @property
    def rates(self) -> Sequence[float]:
        """The ratios."""
        return [float(text) for text in listed(self.config.ratios)]

    @property
    def untrained(self) -> str:
        """A ViT."""
        return "vit"

    @property
    def _shape(self) -> dict[str, Value]:
        c = self.config
        return {"backbone.width": c.width, "backbone.depth": c.depth, "backbone.heads": 4}

    def pretrain(self, rate: float) -> Sequence[DoneRecord]:
        """Pretrain by masked autoencoding."""
        c = self.config
        return self.lab.run(
            methods="mae",
            tasks=c.task,
            backbones="vit",
            set={**self._shape, "method.mask_ratio": rate},
            max_steps=c.steps,
            batch_size=64,
            seeds=integers(c.seeds),
        )

    def probe(self, backbone: str, seed: int) -> dict[str, Any]:
        """Return the grid of a linear probe on that backbone."""
        shape = {} if backbone.startswith("runs:") else self._shape
        return {
            "methods": "linear",
            "tasks": self.config.task,
            "backbones": backbone,
            "set": shape,
            "max_steps": 1,
            "seeds": seed,
        }
