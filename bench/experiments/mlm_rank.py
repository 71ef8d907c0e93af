"""Rank of a BERT's activations after masked language modelling, by mask rate and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.config.options import Config, Value, option
from bench.experiments.masked_rank import MaskedRank
from bench.experiments.numbers import integers, listed
from bench.records.record import DoneRecord


@dataclass(frozen=True, kw_only=True)
class MLMRankConfig(Config):
    """Network and budget; the corpus is that of `bench run --task corpus`."""

    rates: str = option("0.02,0.15,0.4,0.8", "Shares of the tokens that are selected, ascending.")
    width: int = option(128, "D of the BERT.", at_least=1)
    depth: int = option(2, "Its layers.")
    steps: int = option(1000, "Optimiser steps.", at_least=1)
    seeds: str = option("0", "A run each.")


class MLMRank(MaskedRank):
    """The survey's Section 4.3: features that masked language models learn are approximately low-rank.

    Measured: effective rank of the centred token features behind every layer, on whole held-out texts of the corpus,
    after masked language modelling at several rates, the smallest of which is nearly training without masks, and before
    it. Checks: at the rate in common use, .15, the last layer's features have an effective rank of at most half their
    width; the rank at the highest rate is not above that at the lowest. Controls: Gaussian features are not low-rank,
    and neither should be those of the untrained network, or it is not pretraining that makes them so.
    """

    place: ClassVar[str] = "Section 4.3, masked language models"
    quick: ClassVar[Mapping[str, Any]] = {"rates": "0.02,0.15", "seeds": "0", "steps": 60}

    Config = MLMRankConfig

    config: MLMRankConfig
    usual: ClassVar[float] = 0.15

    @property
    def rates(self) -> Sequence[float]:
        """The rates."""
        return [float(text) for text in listed(self.config.rates)]

    @property
    def untrained(self) -> str:
        """A BERT."""
        return "bert"

    @property
    def _shape(self) -> dict[str, Value]:
        c = self.config
        return {"backbone.hidden": c.width, "backbone.layers": c.depth, "backbone.heads": 2}

    def pretrain(self, rate: float) -> Sequence[DoneRecord]:
        """Pretrain by masked language modelling."""
        c = self.config
        return self.lab.run(
            methods="mlm",
            tasks="corpus",
            backbones="bert",
            set={**self._shape, "method.rate": rate, "task.max_length": 64},
            lr=1e-3,
            max_steps=c.steps,
            batch_size=32,
            seeds=integers(c.seeds),
        )

    def probe(self, backbone: str, seed: int) -> dict[str, Any]:
        """Return the grid of a linear probe on that backbone."""
        shape = {} if backbone.startswith("runs:") else self._shape
        return {
            "methods": "linear",
            "tasks": "corpus",
            "backbones": backbone,
            "set": {**shape, "task.max_length": 64},
            "max_steps": 1,
            "seeds": seed,
        }
