"""Which layers AdaLoRA gives rank to, against the spectrum of their gradients before the first step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.config.options import Value, option
from bench.experiments import Check, Control, Experiment, Outcome, TrainingConfig, parse_list
from bench.experiments.statistics import mean, spearman
from bench.figures import Figure, Panel, Series

if TYPE_CHECKING:
    from bench.api.method import Method
    from bench.experiments.lab import Data

SHUFFLES = 2000
LEVEL = 0.95
"""Share of the permutations whose correlation must be exceeded."""


@dataclass(frozen=True, kw_only=True)
class AdaLoRAAllocationConfig(TrainingConfig):
    target: str = option("all-linear", "Layers among which AdaLoRA distributes the rank.")
    rank: int = option(4, "Mean rank at the end.", at_least=1)
    steps: int = option(300, "Optimiser steps.", at_least=1)


class AdaLoRAAllocation(Experiment[AdaLoRAAllocationConfig]):
    """Spearman's correlation, over layers, of the rank that AdaLoRA keeps with ∂loss/∂W of the first batch.

    The survey's open question 3: can ranks be predicted from the gradients at the start, instead of by a heuristic
    during training? Two predictors of each layer's kept rank, means over seeds: the effective rank of its ∂loss/∂W, and
    its nuclear norm. Each correlation must exceed those of 95 % of random permutations of the layers. The control is
    one such permutation.
    """

    Config = AdaLoRAAllocationConfig
    place = "open question 3"
    quick: ClassVar[Mapping[str, Value]] = {"seeds": "0", "steps": 100}

    def run(self) -> Outcome:
        c = self.config
        records = self.lab.run(**c.grid(methods="adalora", set={"method.rank": c.rank, "method.target": c.target}))
        kept = _means([{layer.layer: float(layer.nominal) for layer in r.ranks} for r in records])
        gradients = [_gradients(method, data) for method, data in self.lab.build(**c.grid(methods="full"))]
        predictors = {name: _means([measured[name] for measured in gradients]) for name in gradients[0]}
        layers, source = list(kept), np.random.default_rng(0)
        y = np.array([kept[layer] for layer in layers])
        checks: list[Check] = []
        for name, values in predictors.items():
            x = np.array([values[layer] for layer in layers])
            shuffled = [spearman(source.permutation(x), y) for _ in range(SHUFFLES)]
            checks.append(Check.at_least(name, float(np.quantile(shuffled, LEVEL)), spearman(x, y)))
        limit = checks[0].predicted
        control = Control.below("shuffled layers", limit, spearman(source.permutation(y), y), f"below {limit:.3f}")
        rows = [(layer, f"{kept[layer]:.2f}", *(f"{p[layer]:.4g}" for p in predictors.values())) for layer in layers]
        figure = _figure(kept, predictors, len(parse_list(c.seeds)))
        header = ("layer", "kept rank", *predictors)
        summary = " ".join(f"Correlation with the {check.name}: {check.measured:+.2f}." for check in checks)
        return Outcome(checks=checks, controls=[control], figure=figure, header=header, rows=rows, summary=summary)


def _gradients(method: Method, data: Data) -> dict[str, dict[str, float]]:
    """Measure ∂loss/∂W of all linear layers on the first batch, without dropout: each predictor by layer."""
    from torch import nn

    from bench.spectra import effective_rank, singular_values

    method.eval()
    method.loss(data.first_batch()).backward()
    ranks: dict[str, float] = {}
    norms: dict[str, float] = {}
    for name, module in method.backbone.named_modules():
        if isinstance(module, nn.Linear) and module.weight.grad is not None:
            sigma = singular_values(module.weight.grad)
            ranks[name], norms[name] = float(effective_rank(sigma, singular_values=True)), float(sigma.sum())
    return {"effective rank of the gradient": ranks, "nuclear norm of the gradient": norms}


def _means(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {layer: mean([values[layer] for values in seeds]) for layer in seeds[0]}


def _figure(kept: Mapping[str, float], predictors: Mapping[str, Mapping[str, float]], seeds: int) -> Figure:
    kinds: dict[str, list[str]] = {}
    for layer in kept:
        # `attention.self.query` of `encoder.layer.3.attention.self.query`
        kinds.setdefault(re.sub(r"^(.*\.)?\d+(\.|$)", "", layer), []).append(layer)
    panels: list[Panel] = []
    for name, values in predictors.items():
        content = [
            Series(name=kind, x=[values[n] for n in layers], y=[kept[n] for n in layers], form="points")
            for kind, layers in sorted(kinds.items())
        ]
        x = f"{name}, before the first step"
        panels.append(Panel(title=name, x=x, y="rank that AdaLoRA keeps", x_axis="log", content=content))
    caption = f"One point per layer, means over {seeds} seeds; layers of one kind share a colour."
    return Figure(title="Ranks that AdaLoRA gives to layers", panels=panels, caption=caption)
