"""How the optimiser decides the rank of what training changes in small networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome, parse_list
from bench.experiments.statistics import format_mean, mean, mean_series
from bench.experiments.updates import Groups, resize, train
from bench.figures import Figure, Panel, Series

DESCENT, ADAPTIVE, ORTHOGONAL = ("sgd", "momentum"), ("adam", "adamw"), ("muon",)
EQUAL = 0.02
"""Largest difference of scores that are called equal, as in `nuclear-norm` and `lora-vs-full`."""
MATRICES = ("dln", "mlp", "vit")
"""Networks whose hidden layers are matrices; Muon leaves convolutions to AdamW."""


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

    Optimisers that reach different scores have not solved the same problem, and their ranks say little about how they
    solve it. So a row carries the claim only if an optimiser of another kind (descent, Adam, Muon) reaches the same
    score, within .02, on the same network. The checks are over all rows, as predicted; a check without two rows that
    carry it has a note.
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
        for network, name in product(networks, (*DESCENT, *ADAPTIVE, *ORTHOGONAL)):
            if name != "muon" or network in MATRICES:
                sizes, layer = resize(network, None, None)
                trained[network, name] = train(self.lab, c, network, c.task, name, layer=layer, sizes=sizes)
        ranks = {key: [t.rank for t in group] for key, group in trained.items()}
        carriers: dict[str, list[str]] = {}
        checks: list[Check] = []
        controls: list[Control] = []
        summaries: list[str] = []
        for network in networks:
            means = {name: mean(values) for (other, name), values in ranks.items() if other == network}
            low, high = max(means[name] for name in DESCENT), min(means[name] for name in ADAPTIVE)
            scores = {
                name: mean([t.score for t in group]) for (other, name), group in trained.items() if other == network
            }
            carriers[network] = carrying(scores)
            check = Check.at_most(f"{network}: rank under descent, of that under Adam", 1.0, low / high)
            comparable = carrying({name: scores[name] for name in (*DESCENT, *ADAPTIVE)})
            note = "" if comparable else f"no scores within {EQUAL:g}, so the ranks say little"
            checks.append(replace(check, note=note))
            summaries.append(f"{network}: {', '.join(f'{name} {rank:.0f}' for name, rank in means.items())}.")
            if network in MATRICES:
                muon, others = means["muon"], max(means[name] for name in (*DESCENT, *ADAPTIVE))
                controls.append(Control.above(f"{network}: muon", others, muon, f"above {others:.1f}"))
        rows = [
            (
                network,
                name,
                format_mean([t.score for t in group]),
                format_mean(ranks[network, name], 1),
                "yes" if name in carriers[network] else "no",
            )
            for (network, name), group in trained.items()
        ]
        listed = "; ".join(f"{network} {', '.join(names) or 'none'}" for network, names in carriers.items())
        carry = f"Rows that carry the claim, since scores are equal within {EQUAL:g}: {listed}."
        figure = _rank_figure(trained, ranks, networks, carry)
        header = ("network", "optimiser", "score", "effective rank of ΔW", "carries the claim")
        summary = " ".join([*summaries, carry])
        return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)


def carrying(scores: Mapping[str, float]) -> list[str]:
    """Return the optimisers of one network whose score one of another kind reaches too, within `EQUAL`."""
    kinds = {name: kind for kind in (DESCENT, ADAPTIVE, ORTHOGONAL) for name in kind}
    return [
        name
        for name, score in scores.items()
        if any(kinds[other] != kinds[name] and abs(theirs - score) <= EQUAL for other, theirs in scores.items())
    ]


def _rank_figure(
    trained: Groups, ranks: Mapping[tuple[str, str], Sequence[float]], networks: Sequence[str], caption: str
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
    return Figure(title="The optimiser decides the rank of the update", panels=panels, caption=caption)
