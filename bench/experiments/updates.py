"""Train small networks with several optimisers, and read the spectra of their updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.config.options import Value
from bench.experiments import parse_integers
from bench.experiments.statistics import score

if TYPE_CHECKING:
    from bench.experiments.lab import Lab
    from bench.spectra.files.history import SpectrumHistory

RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 1e-3, "adamw": 1e-3, "muon": 5e-3}
"""Learning rates with which small networks learn within some hundred steps, by optimiser."""
PENULTIMATE = {
    "dln": "layers.1",
    "mlp": "layers.2.linear",
    "vgg11": "model.features.25",
    "resnet18": "model.layer4.1.conv2",
    "vit": "model.blocks.5.mlp.fc2",
}
"""The last layer before the head of each network of default size."""
SNAPSHOTS = 10
"""Spectra per training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One training, and the singular values of W(t) − W(0) of the penultimate layer."""

    network: str
    optimizer: str
    lr: float
    score: float
    update: SpectrumHistory

    def effective_rank(self) -> float:
        """Return the effective rank of the update at the end."""
        p = self.update.values[-1] / self.update.values[-1].sum()
        return float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()))

    def energy(self, directions: int) -> float:
        """Return the share of ‖ΔW‖²_F in the top directions of the update at the end."""
        return energy(self.update.values[-1], directions)


def energy(values: NDArray[np.float64], directions: int) -> float:
    """Return the share of Σσ² in the largest `directions` values; `values` descends."""
    squares = np.square(values / values[0])
    return float(squares[:directions].sum() / squares.sum())


def train(
    lab: Lab, network: str, optimizer: str, factor: float = 1.0, *, task: str, steps: int, batch_size: int, seeds: str
) -> list[Trained]:
    """Train all of a network, once per seed, and record spectra of its penultimate layer.

    Args:
        lab: runs the trainings.
        network: a key of `PENULTIMATE`.
        optimizer: a key of `RATES`.
        factor: the learning rate as a multiple of `RATES[optimizer]`.
        task, steps, batch_size, seeds: as options of an experiment.
    """
    from bench.spectra.files import history  # imports torch

    lr = RATES[optimizer] * factor
    options: dict[str, Value] = {
        "optim.name": optimizer,
        "spectra.layers": PENULTIMATE[network],
        "spectra.every": max(1, steps // SNAPSHOTS),
        **({"head.loss": "squared"} if network == "dln" else {}),
    }
    records = lab.run(
        methods="full",
        tasks=task,
        backbones=network,
        set=options,
        lr=lr,
        max_steps=steps,
        batch_size=batch_size,
        seeds=parse_integers(seeds),
    )
    trained: list[Trained] = []
    for record in records:
        [update] = history.read(lab.folder_of(record) / history.FILE).layers("updates").values()
        trained.append(Trained(network=network, optimizer=optimizer, lr=lr, score=score(record), update=update))
    return trained


def gaussian(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the singular values of a Gaussian matrix, descending: an update that is not low-rank."""
    return np.linalg.svd(np.random.default_rng(0).normal(size=shape), compute_uv=False).astype(np.float64)
