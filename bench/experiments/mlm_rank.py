"""Rank of a BERT's activations after masked language modelling, by mask rate and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.config.sections import in_range
from bench.experiments.masked_rank import MaskedRank
from bench.experiments.numbers import listed
from bench.records.record import DoneRecord


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

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Network and budget; the corpus is that of `bench run --task corpus`."""

        rates: str = "0.02,0.15,0.4,0.8"
        """Shares of the tokens that are selected, ascending."""
        width: int = 128
        """D of the BERT."""
        depth: int = 2
        """Its layers."""
        steps: int = 1000
        """Optimiser steps."""
        seeds: str = "0"
        """A run each."""

        def __post_init__(self) -> None:
            """Check ranges."""
            in_range("steps", self.steps, 1)
            in_range("width", self.width, 1)

    config: Config
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
    def _shape(self) -> str:
        c = self.config
        return f"--set backbone.hidden={c.width} --set backbone.layers={c.depth} --set backbone.heads=2"

    def pretrain(self, rate: float) -> list[DoneRecord]:
        """Masked language modelling."""
        c = self.config
        return self.lab.run(
            f"--method mlm --task corpus --backbone bert {self._shape} --set method.rate={rate!r} --lr 1e-3 "
            f"--set task.max_length=64 --max-steps {c.steps} --batch-size 32 --seeds {c.seeds}"
        )

    def probe(self, backbone: str, seed: int) -> str:
        """A linear layer."""
        shape = "" if backbone.startswith("runs:") else self._shape
        return f"--method linear --task corpus --backbone {backbone} {shape} --set task.max_length=64 --max-steps 1"
