"""How the optimiser decides the rank of what training changes: SGD and momentum low, Adam higher, Muon full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from bench.config.options import Config, option
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import deviation, listed, mean, words
from bench.experiments.updates import Trained, train

if TYPE_CHECKING:
    from bench.figures import Figure

DESCENT, ADAPTIVE = ("sgd", "momentum"), ("adam", "adamw")
MATRICES = ("dln", "mlp", "vit")
"""Networks whose hidden layers are matrices; Muon leaves convolutions to AdamW."""


@dataclass(frozen=True, kw_only=True)
class OptimizersConfig(Config):
    """Networks, optimisers and budget."""

    networks: str = option("mlp,resnet18,vit", "Of dln, mlp, vgg11, resnet18, vit.")
    task: str = option("digits", "An image task, of `bench list tasks`.")
    steps: int = option(150, "Optimiser steps.", at_least=1)
    batch_size: int = option(64, "Examples per step.")
    seeds: str = option("0,1,2", "A run each.")


class Optimizers(Experiment):
    """Effective rank of W(t) − W(0) of the penultimate layer, by network and optimiser (digest, second check).

    Gradient descent adds gradients, which have low rank; Adam divides each entry by its own size, which spreads an
    update over all directions (theory: `parsimony`, where Adam breaks the law); Muon makes every update orthogonal. Per
    network the prediction is an order: the largest rank under sgd and momentum is below the smallest under adam and
    adamw, relative to it. The control is muon, on networks of matrices: its updates must have the highest rank of all.
    """

    place: ClassVar[str] = "digest, second check"
    quick: ClassVar[Mapping[str, Any]] = {"networks": "mlp,vit", "steps": 60, "seeds": "0"}

    Config = OptimizersConfig

    config: OptimizersConfig

    def run(self) -> Outcome:
        """Train every network with every optimiser."""
        c = self.config
        networks, names = listed(c.networks), [*DESCENT, *ADAPTIVE]
        found: dict[tuple[str, str], list[Trained]] = {}
        for network, name in product(networks, [*names, "muon"]):
            if name == "muon" and network not in MATRICES:
                continue
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
            rest = max(mean(ranks[network, name]) for name in names)
            for muon in [mean(ranks[network, "muon"])] if network in MATRICES else []:
                held = muon > rest
                controls.append(
                    Control(name=f"{network}: muon", expected=f"above {rest:.1f}", measured=muon, held=held)
                )
        rows = [
            (network, name, words([t.score for t in found[network, name]]), words(ranks[network, name], 1))
            for network, name in found
        ]
        return Outcome(
            checks=checks,
            controls=controls,
            figure=_figure(found, networks),
            header=("network", "optimiser", "score", "effective rank of ΔW"),
            rows=rows,
            says=" ".join(
                f"{n}: {', '.join(f'{o} {mean(ranks[m, o]):.0f}' for m, o in ranks if m == n)}." for n in networks
            ),
        )


def _figure(found: Mapping[tuple[str, str], Sequence[Trained]], networks: Sequence[str]) -> Figure:
    from bench.figures import Figure, Panel, Series

    ranks = {key: [t.effective() for t in several] for key, several in found.items()}

    def bars(name: str) -> Series:
        there = [network for network in networks if (network, name) in ranks]
        values = [ranks[network, name] for network in there]
        return Series(name=name, x=there, y=[*map(mean, values)], spread=[*map(deviation, values)], form="bars")

    spectra = [
        Panel(
            title=f"{network}: whole update",
            x="index of the singular value",
            y="σ / σ₁",
            y_axis="log",
            content=[
                Series(
                    name=name,
                    x=[*range(1, len(several[0].values[-1]) + 1)],
                    y=(several[0].values[-1] / several[0].values[-1][0]).clip(1e-8).tolist(),
                )
                for (other, name), several in found.items()
                if other == network
            ],
        )
        for network in networks
    ]
    names = dict.fromkeys(name for _, name in found)
    panel = Panel(title="by optimiser", x="network", y="effective rank of ΔW", content=[*map(bars, names)])
    return Figure(title="The optimiser decides the rank of the update", panels=[panel, *spectra])
