"""How many directions training moves: networks under optimisers and rates, and the spectra of their updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.config.options import Value
from bench.experiments.numbers import integers, score
from bench.records.record import DoneRecord

if TYPE_CHECKING:
    from bench.experiments.lab import Lab

RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 1e-3, "adamw": 1e-3, "muon": 5e-3}
"""Learning rates at which small networks learn within some hundred steps."""
PENULTIMATE = {
    "dln": "layers.1",
    "mlp": "layers.2.linear",
    "vgg11": "model.features.25",
    "resnet18": "model.layer4.1.conv2",
    "vit": "model.blocks.5.mlp.fc2",
}
"""The last layer before the head of each network, at its default size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One training.

    Attributes:
        steps: (S,), when its update was looked at.
        values: (S, k), singular values of W(t) − W(0) of the penultimate layer.
        shape: (m, n) of that layer.
    """

    network: str
    optimizer: str
    lr: float
    seed: int
    score: float
    loss: float
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """`mlp adamw 0.001`."""
        return f"{self.network} {self.optimizer} {self.lr:g}"

    def effective(self) -> float:
        """Effective rank of the whole update."""
        p = self.values[-1] / self.values[-1].sum()
        return float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()))

    def energy(self, directions: int) -> float:
        """Share of ‖ΔW‖²_F in the top directions of the whole update."""
        return energy(self.values[-1], directions)


def energy(values: NDArray[np.float64], directions: int) -> float:
    """Share of Σσ² that the largest `directions` hold; `values` descends."""
    squares = np.square(values / values[0])
    return float(squares[:directions].sum() / squares.sum())


def train(
    lab: Lab,
    network: str,
    task: str,
    optimizer: str,
    factor: float,
    *,
    steps: int,
    batch_size: int,
    seeds: str,
    looks: int,
) -> list[Trained]:
    """Train a network in full at a multiple of the optimiser's rate, looking at its penultimate layer on the way."""
    lr = RATES[optimizer] * factor
    options: dict[str, Value] = {
        "optim.name": optimizer,
        "spectra.layers": PENULTIMATE[network],
        "spectra.every": max(1, steps // looks),
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
        seeds=integers(seeds),
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
        loss=record.curve[-1].loss,
        steps=found.steps,
        values=found.values,
        shape=found.shape,
    )


def gaussian(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Singular values of a random matrix, descending: an update in which nothing is low-rank."""
    matrix = np.random.default_rng(seed).normal(size=shape)
    return np.linalg.svd(matrix, compute_uv=False).astype(np.float64)
