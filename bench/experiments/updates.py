"""Small networks trained with several optimisers, and the spectra of what training changes in one layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.config.options import Config, Value, option
from bench.core.errors import UsageError
from bench.experiments import Check, Control, Experiment, Outcome, parse_integers, parse_list, parse_numbers
from bench.experiments.statistics import format_mean, mean, mean_series, score
from bench.figures import Figure, Panel, Series
from bench.records.files import checked

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
CARRIED = 0.9
"""Share of ‖ΔW‖²_F that the top 2K directions must hold."""
SHOWN = 40
"""Largest singular values in a panel."""
VECTORS = ("dln", "mlp")
"""Networks that read vectors."""
DESCENT, ADAPTIVE = ("sgd", "momentum"), ("adam", "adamw")
MATRICES = ("dln", "mlp", "vit")
"""Networks whose hidden layers are matrices; Muon leaves convolutions to AdamW."""
Groups: TypeAlias = "dict[tuple[str, str], list[Trained]]"
"""Trainings by network and optimiser."""


@dataclass(frozen=True, kw_only=True)
class Figure1Config(Config):
    networks: str = option("dln,mlp,vgg11,vit", "Of dln, mlp, vgg11, resnet18, vit.")
    vectors: str = option("mnist", "Task of the networks without convolutions or attention.")
    images: str = option("cifar10", "Task of the others.")
    optimizers: str = option("momentum,adamw", "Of sgd, momentum, adam, adamw, muon.")
    factors: str = option("0.3,1", "Multiples of each optimiser's learning rate.")
    steps: int = option(200, "Optimiser steps.", at_least=1)
    batch_size: int = option(64, "Examples per step.")
    classes: int = option(10, "K of both tasks.", at_least=1)
    seeds: str = option("0", "Seeds, separated by commas; one run per seed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not {*parse_list(self.networks)} <= {*PENULTIMATE}:
            raise UsageError(f"networks={self.networks}", f"known: {', '.join(PENULTIMATE)}", "Choose among these.")


class Figure1(Experiment[Figure1Config]):
    """Singular values of W(t) − W(0) of the penultimate layer over training (survey, Figure 1 and Section 3).

    A deep linear network with squared error and an MLP on `vectors`, VGG-11 and a ViT, with cross-entropy, on `images`,
    each with every optimiser and rate (multiples of .1 for sgd, .02 for momentum, 1e-3 for Adam, 5e-3 for Muon). Check,
    per network and optimiser: at the end the top 2K directions (K classes) hold at least 90 % of ‖ΔW‖²_F, in the mean
    over rates and seeds. The control is a Gaussian matrix of the same shape, whose top 2K directions hold less.
    """

    Config = Figure1Config
    summary = "The survey's Figure 1: in trained networks, few singular directions of a layer's update carry it."
    place = "Figure 1"
    quick: ClassVar[Mapping[str, Value]] = {
        "vectors": "digits",
        "images": "digits",
        "networks": "dln,mlp,vit",
        "factors": "1",
        "steps": 100,
    }

    def run(self) -> Outcome:
        c, top = self.config, 2 * self.config.classes
        variants = product(parse_list(c.networks), parse_list(c.optimizers), parse_numbers(c.factors))
        groups: Groups = {}
        for network, optimizer, factor in variants:
            task = c.vectors if network in VECTORS else c.images
            trained = train(self.lab, c, network, task, optimizer, factor)
            groups.setdefault((network, optimizer), []).extend(trained)
        checks = [
            Check.at_least(f"{', '.join(names)}: share in the top {top}", CARRIED, mean([t.energy(top) for t in group]))
            for names, group in groups.items()
        ]
        expected = f"share in the top {top} below {CARRIED:g}"
        controls: list[Control] = []
        shapes = {network: group[0].update.shape for (network, _), group in groups.items()}
        for network, (m, n) in shapes.items():
            share = energy(gaussian((m, n)), top)
            controls.append(Control.below(f"{network}: Gaussian {m}×{n}", CARRIED, share, expected))
        rows = [_row(t, (top, c.classes)) for group in groups.values() for t in group]
        held = sum(check.held for check in checks)
        shares = (f"share in top {top}", f"in top {c.classes}")
        figure = _figure1(groups.values())
        header = ("network", "optimiser", "lr", "score", *shares, "effective rank")
        summary = f"The top {top} directions hold {CARRIED:.0%} of the update in {held} of {len(checks)} cases."
        return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)


def _row(t: Trained, directions: Sequence[int]) -> Sequence[str]:
    shares = (f"{t.energy(k):.3f}" for k in directions)
    rank = f"{t.rank:.1f} / {min(t.update.shape)}"
    return (t.network, t.optimizer, f"{t.lr:g}", f"{t.score:.3f}", *shares, rank)


def _figure1(groups: Iterable[Sequence[Trained]]) -> Figure:
    """Plot singular values over steps, with the last rate and the first seed of each group."""
    panels: list[Panel] = []
    for group in groups:
        shown = next(trained for trained in group if trained.lr == group[-1].lr)
        title, steps = f"{shown.network}, {shown.optimizer}, lr {shown.lr:g}", shown.update.steps.tolist()
        values = shown.update.values[:, :SHOWN].T.tolist()
        content = [Series(name=f"σ{i}", x=steps, y=sigma) for i, sigma in enumerate(values, 1)]
        panels.append(Panel(title=title, x="step", y="singular value of W(t) − W(0)", content=content))
    caption = f"The {SHOWN} largest singular values of the penultimate layer's update, with the last learning rate."
    return Figure(title="What training changes: singular values of W(t) − W(0)", panels=panels, caption=caption)


@dataclass(frozen=True, kw_only=True)
class OptimizersConfig(Config):
    networks: str = option("mlp,resnet18,vit", "Of dln, mlp, vgg11, resnet18, vit.")
    task: str = option("digits", "An image task of `bench list tasks`.")
    steps: int = option(150, "Optimiser steps.", at_least=1)
    batch_size: int = option(64, "Examples per step.")
    seeds: str = option("0,1,2", "Seeds, separated by commas; one run per seed.")


class Optimizers(Experiment[OptimizersConfig]):
    """Effective rank of W(t) − W(0) of the penultimate layer, by network and optimiser (digest, second check).

    Gradient descent adds gradients, which have low rank; Adam divides each entry by its own size, which spreads an
    update over all directions (theory: `parsimony`, where Adam breaks the law); Muon makes every update orthogonal. Per
    network the prediction is an order: the largest rank with sgd and momentum is below the smallest with adam and
    adamw, relative to it. The control is muon, on networks of matrices: its updates must have the highest rank of all.
    """

    Config = OptimizersConfig
    summary = (
        "How the optimiser decides the rank of what training changes: SGD and momentum low, Adam higher, Muon full."
    )
    place = "digest, second check"
    quick: ClassVar[Mapping[str, Value]] = {"networks": "mlp,vit", "steps": 60, "seeds": "0"}

    def run(self) -> Outcome:
        c = self.config
        networks = parse_list(c.networks)
        trained: Groups = {}
        for network, name in product(networks, (*DESCENT, *ADAPTIVE, "muon")):
            if name != "muon" or network in MATRICES:
                trained[network, name] = train(self.lab, c, network, c.task, name)
        ranks = {key: [t.rank for t in group] for key, group in trained.items()}
        checks: list[Check] = []
        controls: list[Control] = []
        summaries: list[str] = []
        for network in networks:
            means = {name: mean(values) for (other, name), values in ranks.items() if other == network}
            low, high = max(means[name] for name in DESCENT), min(means[name] for name in ADAPTIVE)
            checks.append(Check.at_most(f"{network}: rank under descent, of that under Adam", 1.0, low / high))
            summaries.append(f"{network}: {', '.join(f'{name} {rank:.0f}' for name, rank in means.items())}.")
            if network in MATRICES:
                muon, others = means["muon"], max(means[name] for name in (*DESCENT, *ADAPTIVE))
                controls.append(Control.above(f"{network}: muon", others, muon, f"above {others:.1f}"))
        rows = [
            (network, name, format_mean([t.score for t in group]), format_mean(ranks[network, name], 1))
            for (network, name), group in trained.items()
        ]
        figure = _rank_figure(trained, ranks, networks)
        header = ("network", "optimiser", "score", "effective rank of ΔW")
        summary = " ".join(summaries)
        return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)


def _rank_figure(trained: Groups, ranks: Mapping[tuple[str, str], Sequence[float]], networks: Sequence[str]) -> Figure:
    bars = [
        mean_series(name, {n: ranks[n, name] for n in networks if (n, name) in ranks}, "bars")
        for name in dict.fromkeys(name for _, name in ranks)
    ]
    panels = [Panel(title="by optimiser", x="network", y="effective rank of ΔW", content=bars)]
    for network in networks:
        first_seeds = {name: group[0] for (other, name), group in trained.items() if other == network}
        content: list[Series] = []
        for name, first in first_seeds.items():
            sigma = first.update.values[-1]
            y = (sigma / sigma[0]).clip(1e-8).tolist()
            content.append(Series(name=name, x=[*range(1, len(sigma) + 1)], y=y))
        title, x = f"{network}: whole update", "index of the singular value"
        panels.append(Panel(title=title, x=x, y="σ / σ₁", y_axis="log", content=content))
    return Figure(title="The optimiser decides the rank of the update", panels=panels)


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
    lab: Lab, config: Figure1Config | OptimizersConfig, network: str, task: str, optimizer: str, factor: float = 1.0
) -> list[Trained]:
    """Train all of a network, once per seed, at `factor` times the optimiser's rate of `RATES`."""
    from bench.spectra.files import history  # imports torch

    lr = RATES[optimizer] * factor
    options: dict[str, Value] = {
        "optim.name": optimizer,
        "spectra.layers": PENULTIMATE[network],
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
