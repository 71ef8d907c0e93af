"""Rank of a ViT's activations after masked autoencoding, by mask ratio and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.config.sections import in_range
from bench.experiments.masked_rank import MaskedRank
from bench.experiments.numbers import listed
from bench.records.record import DoneRecord


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

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Network, data and budget."""

        task: str = "digits"
        """An image task of `bench list tasks`."""
        ratios: str = "0.1,0.25,0.5,0.75,0.9"
        """Shares of the patches that are masked, ascending."""
        width: int = 64
        """D of the ViT."""
        depth: int = 4
        """Its blocks."""
        steps: int = 1000
        """Optimiser steps."""
        seeds: str = "0,1,2"
        """A run each."""

        def __post_init__(self) -> None:
            """Check ranges."""
            in_range("steps", self.steps, 1)
            in_range("width", self.width, 1)

    config: Config
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
    def _shape(self) -> str:
        c = self.config
        return f"--set backbone.width={c.width} --set backbone.depth={c.depth} --set backbone.heads=4"

    def pretrain(self, rate: float) -> list[DoneRecord]:
        """Masked autoencoding."""
        c = self.config
        return self.lab.run(
            f"--method mae --task {c.task} --backbone vit {self._shape} --set method.mask_ratio={rate!r} "
            f"--max-steps {c.steps} --batch-size 64 --seeds {c.seeds}"
        )

    def probe(self, backbone: str, seed: int) -> str:
        """A linear layer."""
        shape = "" if backbone.startswith("runs:") else self._shape
        return f"--method linear --task {self.config.task} --backbone {backbone} {shape} --max-steps 1"
