"""Training of small networks with several optimisers, and the spectra of what it changes in the last hidden layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.config.options import Value
from bench.experiments import parse_integers
from bench.experiments.statistics import score
from bench.records.files import checked

if TYPE_CHECKING:
    from bench.experiments.lab import Lab
    from bench.spectra.files.history import SpectrumHistory

RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 1e-3, "adamw": 1e-3, "muon": 5e-3}
"""Learning rates with which small networks learn within some hundred steps, by optimiser."""
PENULTIMATE = {
    "dln": "layers.{}",
    "mlp": "layers.{}.linear",
    "vgg11": "model.features.25",
    "resnet18": "model.layer4.1.conv2",
    "vit": "model.blocks.{}.mlp.fc2",
}
"""The last layer before the head of each network."""
LAST_PLACE = {"dln": (3, 2), "mlp": (4, 2), "vit": (6, 1)}
"""Depth by default, and by how much the place of that layer is less than the depth."""
VGG_GROWTH = 8
"""Channels of VGG-11's last convolution, relative to the first."""
HEAD_WIDTH = 64
"""Least width of an attention head of the ViT."""
SNAPSHOTS = 10
"""Spectra per training."""
Groups: TypeAlias = "dict[tuple[str, str], list[Trained]]"
"""Trainings by network and optimiser."""


class Training(Protocol):
    """Options of an experiment that all its trainings share."""

    @property
    def steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def seeds(self) -> str: ...


def resize(network: str, width: int | None, depth: int | None) -> tuple[dict[str, Value], str]:
    """Return options of a backbone that give it a width and a depth, and its last layer before the head."""
    options: dict[str, Value] = {}
    if width is not None:
        options["backbone.width"] = width // VGG_GROWTH if network == "vgg11" else width
        if network == "vit":
            most = max(1, width // HEAD_WIDTH)
            options["backbone.heads"] = max(heads for heads in range(1, most + 1) if width % heads == 0)
    if network not in LAST_PLACE:
        return options, PENULTIMATE[network]
    own, less = LAST_PLACE[network]
    if depth is not None:
        options["backbone.depth"] = depth
    return options, PENULTIMATE[network].format((depth or own) - less)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One training, and the singular values of W(t) − W(0) of the penultimate layer."""

    network: str
    optimizer: str
    lr: float
    score: float
    update: SpectrumHistory

    @property
    def rank(self) -> float:
        """Effective rank at the end."""
        return self.update.effective_ranks()[-1]

    def energy(self, directions: int) -> float:
        return energy(self.update.values[-1], directions)


def energy(values: NDArray[np.float64], directions: int) -> float:
    """Return the share of Σσ² in the largest `directions` values; `values` descends."""
    squares = np.square(values / values[0])
    return float(squares[:directions].sum() / squares.sum())


def train(
    lab: Lab,
    config: Training,
    network: str,
    task: str,
    optimizer: str,
    factor: float = 1.0,
    *,
    layer: str,
    sizes: Mapping[str, Value],
) -> list[Trained]:
    """Train all of a network, once per seed, at `factor` times the optimiser's rate of `RATES`.

    `layer` and `sizes` are what `resize` returns: the layer that is tracked, and options of the backbone.
    """
    from bench.spectra.files import history  # imports torch

    lr = RATES[optimizer] * factor
    options: dict[str, Value] = {
        **sizes,
        "optim.name": optimizer,
        "spectra.layers": layer,
        "spectra.every": max(1, config.steps // SNAPSHOTS),
        **({"head.loss": "squared"} if network == "dln" else {}),
    }
    records = lab.run(
        methods="full",
        tasks=task,
        backbones=network,
        set=options,
        lr=lr,
        max_steps=config.steps,
        batch_size=config.batch_size,
        seeds=parse_integers(config.seeds),
    )
    trained: list[Trained] = []
    for record in records:
        stored = history.read(checked(record, lab.folder_of(record), history.FILE))
        [update] = stored.layers("updates").values()
        trained.append(Trained(network=network, optimizer=optimizer, lr=lr, score=score(record), update=update))
    return trained


def gaussian(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the singular values of a Gaussian matrix, descending: an update that is not low-rank."""
    return np.linalg.svd(np.random.default_rng(0).normal(size=shape), compute_uv=False).astype(np.float64)
