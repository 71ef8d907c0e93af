"""The survey's Figure 1: in trained networks, few singular directions of a layer's update carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from bench.config.options import Config, Value, option
from bench.core.errors import UsageError
from bench.experiments import Check, Control, Experiment, Outcome, parse_list, parse_numbers
from bench.experiments.statistics import mean
from bench.experiments.updates import PENULTIMATE, Trained, energy, gaussian, train
from bench.figures import Figure, Panel, Series

CARRIED = 0.9
"""Share of ‖ΔW‖²_F that the top 2K directions must hold."""
SHOWN = 40
"""Largest singular values in a panel."""
VECTORS = ("dln", "mlp")
"""Networks that read vectors."""


@dataclass(frozen=True, kw_only=True)
class Figure1Config(Config):
    """Networks, data, optimisers and budget."""

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
        """Check ranges and names."""
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
    place = "Figure 1"
    quick: ClassVar[Mapping[str, Value]] = {
        "vectors": "digits",
        "images": "digits",
        "networks": "dln,mlp,vit",
        "factors": "1",
        "steps": 100,
    }

    def run(self) -> Outcome:
        """Train every network with every optimiser and rate."""
        c, top = self.config, 2 * self.config.classes
        networks, optimizers = parse_list(c.networks), parse_list(c.optimizers)
        trained: list[Trained] = []
        for network, optimizer, factor in product(networks, optimizers, parse_numbers(c.factors)):
            task = c.vectors if network in VECTORS else c.images
            trained += train(
                self.lab, network, task, optimizer, factor, steps=c.steps, batch_size=c.batch_size, seeds=c.seeds
            )
        checks: list[Check] = []
        for network, optimizer in product(networks, optimizers):
            shares = [t.energy(top) for t in trained if (t.network, t.optimizer) == (network, optimizer)]
            checks.append(Check.at_least(f"{network}, {optimizer}: share in the top {top}", CARRIED, mean(shares)))
        shapes = {network: next(t.shape for t in trained if t.network == network) for network in networks}
        controls = [
            Control.below(
                f"{network}: Gaussian {m}×{n}",
                CARRIED,
                energy(gaussian((m, n)), top),
                f"share in the top {top} below {CARRIED:g}",
            )
            for network, (m, n) in shapes.items()
        ]
        rows = [
            (
                t.network,
                t.optimizer,
                f"{t.lr:g}",
                f"{t.score:.3f}",
                f"{t.energy(top):.3f}",
                f"{t.energy(c.classes):.3f}",
                f"{t.effective_rank():.1f} / {min(t.shape)}",
            )
            for t in trained
        ]
        held = sum(check.held for check in checks)
        shares = (f"share in top {top}", f"in top {c.classes}")
        return Outcome(
            checks=checks,
            controls=controls,
            figure=_figure(trained),
            header=("network", "optimiser", "lr", "score", *shares, "effective rank"),
            rows=rows,
            summary=f"The top {top} directions hold {CARRIED:.0%} of the update in {held} of {len(checks)} cases.",
        )


def _figure(trained: Sequence[Trained]) -> Figure:
    """Plot singular values over steps, with the last rate and the first seed."""
    last = {(t.network, t.optimizer): t.lr for t in trained}
    shown = [
        next(t for t in trained if (t.network, t.optimizer, t.lr) == (network, optimizer, lr))
        for (network, optimizer), lr in last.items()
    ]
    panels = [
        Panel(
            title=f"{t.network}, {t.optimizer}, lr {t.lr:g}",
            x="step",
            y="singular value of W(t) − W(0)",
            content=[
                Series(name=f"σ{i + 1}", x=t.steps.tolist(), y=t.values[:, i].tolist())
                for i in range(min(SHOWN, t.values.shape[1]))
            ],
        )
        for t in shown
    ]
    caption = f"The {SHOWN} largest singular values of the penultimate layer's update, with the last learning rate."
    return Figure(title="What training changes: singular values of W(t) − W(0)", panels=panels, caption=caption)
