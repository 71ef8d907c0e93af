"""How the optimiser decides the rank of what training changes: SGD and momentum low, Adam higher, Muon full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from bench.config import in_range
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import deviation, listed, mean, words
from bench.experiments.updates import Trained, train

if TYPE_CHECKING:
    from bench.figures import Figure

DESCENT, ADAPTIVE = ("sgd", "momentum"), ("adam", "adamw")


class Optimizers(Experiment):
    """Effective rank of W(t) − W(0) of the penultimate layer, by network and optimiser (digest, second check).

    Gradient descent adds gradients, which have low rank; Adam divides each entry by its own size, which spreads an
    update over all directions (theory: `parsimony`, where Adam breaks the law); Muon makes every update orthogonal. Per
    network the prediction is an order: the largest rank under sgd and momentum is below the smallest under adam and
    adamw, relative to it. The control is muon, whose updates must have the highest rank of all.
    """

    place: ClassVar[str] = "digest, second check"
    quick: ClassVar[Mapping[str, Any]] = {"networks": "mlp,vit", "steps": 60, "seeds": "0"}

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Networks, optimisers and budget."""

        networks: str = "mlp,resnet18,vit"
        """Of dln, mlp, vgg11, resnet18, vit."""
        task: str = "digits"
        """An image task, of `bench list tasks`."""
        steps: int = 150
        """Optimiser steps."""
        batch_size: int = 64
        """Examples per step."""
        seeds: str = "0,1,2"
        """A run each."""

        def __post_init__(self) -> None:
            """Check ranges."""
            in_range("steps", self.steps, 1)

    config: Config

    def run(self) -> Outcome:
        """Train every network with every optimiser."""
        c = self.config
        networks, names = listed(c.networks), [*DESCENT, *ADAPTIVE, "muon"]
        found: dict[tuple[str, str], list[Trained]] = {}
        for network, name in product(networks, names):
            found[network, name] = train(
                self.lab, network, c.task, name, 1.0, steps=c.steps, batch_size=c.batch_size, seeds=c.seeds, looks=10
            )
        ranks = {key: [t.effective() for t in several] for key, several in found.items()}
        checks: list[Check] = []
        controls: list[Control] = []
        for network in networks:
            low, high = (
                pick(mean(ranks[network, name]) for name in group) for pick, group in ((max, DESCENT), (min, ADAPTIVE))
            )
            checks.append(Check.at_most(f"{network}: rank under descent, of that under Adam", 1.0, low / high))
            muon, rest = mean(ranks[network, "muon"]), max(mean(ranks[network, name]) for name in names[:-1])
            controls.append(
                Control(name=f"{network}: muon", expected=f"above {rest:.1f}", measured=muon, held=muon > rest)
            )
        rows = [
            (network, name, words([t.score for t in found[network, name]]), words(ranks[network, name], 1))
            for network, name in found
        ]
        return Outcome(
            checks=checks,
            controls=controls,
            figure=_figure(found, networks, names),
            header=("network", "optimiser", "score", "effective rank of ΔW"),
            rows=rows,
            says=" ".join(f"{n}: {', '.join(f'{o} {mean(ranks[n, o]):.0f}' for o in names)}." for n in networks),
        )


def _figure(
    found: Mapping[tuple[str, str], Sequence[Trained]], networks: Sequence[str], names: Sequence[str]
) -> Figure:
    from bench.figures import Figure, Panel, Series

    ranks = {key: [t.effective() for t in several] for key, several in found.items()}
    bars = [
        Series(
            name=name,
            x=networks,
            y=[mean(ranks[network, name]) for network in networks],
            spread=[deviation(ranks[network, name]) for network in networks],
            form="bars",
        )
        for name in names
    ]
    spectra = [
        Panel(
            title=f"{network}: whole update",
            x="index of the singular value",
            y="σ / σ₁",
            y_axis="log",
            content=[
                Series(
                    name=name,
                    x=[*range(1, len(first.values[-1]) + 1)],
                    y=(first.values[-1] / first.values[-1][0]).clip(1e-8).tolist(),
                )
                for name in names
                for first in found[network, name][:1]
            ],
        )
        for network in networks
    ]
    panel = Panel(title="by optimiser", x="network", y="effective rank of ΔW", content=bars)
    return Figure(title="The optimiser decides the rank of the update", panels=[panel, *spectra])
