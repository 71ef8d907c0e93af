"""How the optimiser decides the rank of what training changes: SGD and momentum low, Adam higher, Muon full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome, parse_list
from bench.experiments.statistics import format_mean, mean, mean_series
from bench.experiments.updates import Trained, train
from bench.figures import Figure, Panel, Series

DESCENT, ADAPTIVE = ("sgd", "momentum"), ("adam", "adamw")
MATRICES = ("dln", "mlp", "vit")
"""Networks whose hidden layers are matrices; Muon leaves convolutions to AdamW."""


@dataclass(frozen=True, kw_only=True)
class OptimizersConfig(Config):
    """Networks and budget."""

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
    place = "digest, second check"
    quick: ClassVar[Mapping[str, Value]] = {"networks": "mlp,vit", "steps": 60, "seeds": "0"}

    def run(self) -> Outcome:
        """Train every network with every optimiser."""
        c = self.config
        networks = parse_list(c.networks)
        trained: dict[tuple[str, str], list[Trained]] = {}
        for network, name in product(networks, (*DESCENT, *ADAPTIVE, "muon")):
            if name != "muon" or network in MATRICES:
                trained[network, name] = train(
                    self.lab, network, name, task=c.task, steps=c.steps, batch_size=c.batch_size, seeds=c.seeds
                )
        ranks = {key: [t.effective_rank() for t in group] for key, group in trained.items()}
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
        return Outcome(
            checks=checks,
            controls=controls,
            figure=_figure(trained, ranks, networks),
            header=("network", "optimiser", "score", "effective rank of ΔW"),
            rows=rows,
            summary=" ".join(summaries),
        )


def _figure(
    trained: Mapping[tuple[str, str], Sequence[Trained]],
    ranks: Mapping[tuple[str, str], Sequence[float]],
    networks: Sequence[str],
) -> Figure:
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
