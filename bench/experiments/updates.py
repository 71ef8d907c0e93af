"""Train small networks with several optimisers, and read the spectra of their updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.config.options import Value
from bench.experiments import parse_integers
from bench.experiments.statistics import score
from bench.records.record import DoneRecord

if TYPE_CHECKING:
    from bench.experiments.lab import Lab

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
    """One training, and the update W(t) − W(0) of the penultimate layer.

    Attributes:
        steps: (S,), the steps t with a spectrum.
        values: (S, k), singular values of the update.
        shape: (m, n) of that layer.
    """

    network: str
    optimizer: str
    lr: float
    seed: int
    score: float
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]

    def effective_rank(self) -> float:
        """Return the effective rank of the update at the end."""
        p = self.values[-1] / self.values[-1].sum()
        return float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()))

    def energy(self, directions: int) -> float:
        """Return the share of ‖ΔW‖²_F in the top directions of the update at the end."""
        return energy(self.values[-1], directions)


def energy(values: NDArray[np.float64], directions: int) -> float:
    """Return the share of Σσ² in the largest `directions` values; `values` descends."""
    squares = np.square(values / values[0])
    return float(squares[:directions].sum() / squares.sum())


def train(
    lab: Lab, network: str, task: str, optimizer: str, factor: float, *, steps: int, batch_size: int, seeds: str
) -> list[Trained]:
    """Train all of a network, once per seed, and record spectra of its penultimate layer.

    Args:
        lab: runs the trainings.
        network: a key of `PENULTIMATE`.
        task: a task of `bench list tasks`.
        optimizer: a key of `RATES`.
        factor: the learning rate as a multiple of `RATES[optimizer]`.
        steps: optimiser steps.
        batch_size: examples per step.
        seeds: `0,1,2`.
    """
    lr = RATES[optimizer] * factor
    options: dict[str, Value] = {
        "optim.name": optimizer,
        "spectra.layers": PENULTIMATE[network],
        "spectra.every": max(1, steps // SNAPSHOTS),
    }
    if network == "dln":
        options["head.loss"] = "squared"
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
    return [_trained(lab, record, network, optimizer, lr) for record in records]


def _trained(lab: Lab, record: DoneRecord, network: str, optimizer: str, lr: float) -> Trained:
    from bench.spectra.files import history  # brings torch along

    [found] = history.read(lab.folder_of(record) / history.FILE).layers("updates").values()
    return Trained(
        network=network,
        optimizer=optimizer,
        lr=lr,
        seed=record.spec.seed,
        score=score(record),
        steps=found.steps,
        values=found.values,
        shape=found.shape,
    )


def gaussian(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Return the singular values of a Gaussian matrix, descending: an update that is not low-rank."""
    matrix = np.random.default_rng(seed).normal(size=shape)
    return np.linalg.svd(matrix, compute_uv=False).astype(np.float64)
