"""The survey's Figure 1: singular values of what training changes, over training, in small networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from bench.config.options import Config, Value, option
from bench.core.errors import UsageError
from bench.experiments import Check, Control, Experiment, Outcome, parse_list, parse_numbers
from bench.experiments.statistics import mean
from bench.experiments.updates import PENULTIMATE, VGG_GROWTH, Groups, Trained, energy, gaussian, resize, train
from bench.figures import Figure, Panel, Series

CARRIED = 0.9
"""Share of ‖ΔW‖²_F that the top 2K directions must hold."""
SHOWN = 40
"""Largest singular values in a panel."""
VECTORS = ("dln", "mlp")
"""Networks that read vectors."""


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
    width: int | None = option(
        None,
        "Number of singular values of the layer: width of dln, mlp and vit, channels of vgg11's last convolution. None "
        "takes each network's own: the size of an input, 512, 192, 512.",
        at_least=1,
    )
    depth: int | None = option(
        None,
        "Matrices of dln and mlp, the head's included, and blocks of vit. None takes each network's own: 3, 4, 6.",
        at_least=2,
    )
    seeds: str = option("0", "Seeds, separated by commas; one run per seed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        networks = parse_list(self.networks)
        if not {*networks} <= {*PENULTIMATE}:
            raise UsageError(f"networks={self.networks}", f"known: {', '.join(PENULTIMATE)}", "Choose among these.")
        if self.width is None:
            return
        if self.width <= 2 * self.classes:
            known = f"the top 2K = {2 * self.classes} directions would hold all of any update"
            raise UsageError(f"width={self.width} is too small", known, "Give a larger width.")
        if "vgg11" in networks and self.width % VGG_GROWTH:
            known = f"its last convolution has {VGG_GROWTH} times the channels of its first"
            raise UsageError(f"width={self.width} does not go with vgg11", known, f"Give a multiple of {VGG_GROWTH}.")
        if "resnet18" in networks:
            raise UsageError("width does not go with resnet18", "its width is fixed", "Leave it out of networks.")


class Figure1(Experiment[Figure1Config]):
    """Singular values of W(t) − W(0) of the penultimate layer over training (survey, Figure 1 and Section 3).

    A deep linear network with squared error and an MLP on `vectors`, VGG-11 and a ViT, with cross-entropy, on `images`,
    each with every optimiser and rate (multiples of .1 for sgd, .02 for momentum, 1e-3 for Adam, 5e-3 for Muon). Check,
    per network and optimiser: at the end the top 2K directions (K classes) hold at least 90 % of ‖ΔW‖²_F, in the mean
    over rates and seeds. The control is a Gaussian matrix of the same shape, whose top 2K directions hold less.

    2K does not depend on `width` and `depth`, and the control has the shape that follows from them. The 90 % were set
    for each network's own size: a smaller width makes them easier, for the control too, which fails where they say
    nothing.
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
            sizes, layer = resize(network, c.width, c.depth)
            trained = train(self.lab, c, network, task, optimizer, factor, layer=layer, sizes=sizes)
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
        if c.width is not None or c.depth is not None:
            summary += f" The {CARRIED:.0%} were set for each network's own size."
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
