"""Which layers AdaLoRA gives rank to, against the spectrum of their gradients before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.config.options import Config, option
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import integers, listed, mean, spearman

if TYPE_CHECKING:
    from bench.figures import Figure

SHUFFLES = 2000
LEVEL = 0.95
"""Share of shuffled orders of the layers that a correlation must exceed."""


@dataclass(frozen=True, kw_only=True)
class AdaLoRAAllocationConfig(Config):
    """Where AdaLoRA allocates."""

    task: str = option("glue/stsb", "A task of `bench list tasks`.")
    backbone: str = option("minilm", "The pretrained network.")
    target: str = option("all-linear", "Layers among which rank is shared out.")
    rank: int = option(4, "Mean rank at the end.", at_least=1)
    steps: int = option(300, "Optimiser steps.", at_least=1)
    seeds: str = option("0,1,2", "A run each.")


class AdaLoRAAllocation(Experiment):
    """Spearman's correlation, over layers, of the rank that AdaLoRA keeps with ∂loss/∂W of the first batch.

    The survey's open question 3: can ranks be told from the gradients at the start, instead of by a heuristic on the
    way? Two predictors of each layer's kept rank, means over seeds: the effective rank of its ∂loss/∂W, and its nuclear
    norm. Each must correlate more than 95 % of all shufflings of the layers do. The control is one such shuffling.
    """

    place: ClassVar[str] = "open question 3"
    quick: ClassVar[Mapping[str, Any]] = {"seeds": "0", "steps": 100}

    Config = AdaLoRAAllocationConfig

    config: AdaLoRAAllocationConfig

    def run(self) -> Outcome:
        """Take the gradients of a network that has learned nothing yet, then let AdaLoRA allocate."""
        c = self.config
        shared: dict[str, Any] = {
            "tasks": c.task,
            "backbones": c.backbone,
            "seeds": integers(c.seeds),
            "max_steps": c.steps,
        }
        options = {"method.rank": c.rank, "method.target": c.target}
        records = self.lab.run(methods="adalora", set=options, **shared)
        kept = _means([{layer.layer: float(layer.nominal) for layer in r.ranks} for r in records])
        gradients = [_gradients(method, data) for method, data in self.lab.build(methods="full", **shared)]
        predictors = {
            "effective rank of the gradient": _means([{n: g[0] for n, g in one.items()} for one in gradients]),
            "nuclear norm of the gradient": _means([{n: g[1] for n, g in one.items()} for one in gradients]),
        }
        layers, source = list(kept), np.random.default_rng(0)
        y = np.array([kept[layer] for layer in layers])
        checks: list[Check] = []
        for name, values in predictors.items():
            x = np.array([values[layer] for layer in layers])
            shuffled = [spearman(source.permutation(x), y) for _ in range(SHUFFLES)]
            checks.append(Check.at_least(name, float(np.quantile(shuffled, LEVEL)), spearman(x, y)))
        by_chance = spearman(source.permutation(y), y)
        control = Control(
            name="shuffled layers",
            expected=f"below {checks[0].predicted:.3f}",
            measured=by_chance,
            held=by_chance < checks[0].predicted,
        )
        rows = [(layer, f"{kept[layer]:.2f}", *(f"{p[layer]:.4g}" for p in predictors.values())) for layer in layers]
        return Outcome(
            checks=checks,
            controls=[control],
            figure=_figure(kept, predictors, len(listed(c.seeds))),
            header=("layer", "kept rank", *predictors),
            rows=rows,
            says=" ".join(f"Correlation with the {check.name}: {check.measured:+.2f}." for check in checks),
        )


def _gradients(method: Any, data: Any) -> dict[str, tuple[float, float]]:
    """Effective rank and nuclear norm of ∂loss/∂W of every linear layer, on the first batch in evaluation mode."""
    from torch import nn

    from bench.spectra import effective_rank, singular_values

    method.eval()
    method.loss(data.first_batch()).backward()
    found: dict[str, tuple[float, float]] = {}
    for name, module in method.backbone.named_modules():
        if isinstance(module, nn.Linear) and module.weight.grad is not None:
            sigma = singular_values(module.weight.grad)
            found[name] = (float(effective_rank(sigma, singular_values=True)), float(sigma.sum()))
    return found


def _means(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: mean([one[name] for one in several]) for name in several[0]}


def _figure(kept: Mapping[str, float], predictors: Mapping[str, Mapping[str, float]], seeds: int) -> Figure:
    from bench.figures import Figure, Panel, Series

    kinds = sorted({_kind(layer) for layer in kept})
    panels = [
        Panel(
            title=name,
            x=f"{name}, before the first step",
            y="rank that AdaLoRA keeps",
            x_axis="log",
            content=[
                Series(
                    name=kind,
                    x=[values[layer] for layer in kept if _kind(layer) == kind],
                    y=[kept[layer] for layer in kept if _kind(layer) == kind],
                    form="points",
                )
                for kind in kinds
            ],
        )
        for name, values in predictors.items()
    ]
    caption = f"One point per layer, means over {seeds} seeds; layers of one kind share a colour."
    return Figure(title="What AdaLoRA gives rank to", panels=panels, caption=caption)


def _kind(layer: str) -> str:
    """`attention.self.query` of `model.encoder.layer.3.attention.self.query`."""
    parts = layer.split(".")
    last = max((i for i, part in enumerate(parts) if part.isdigit()), default=-1)
    return ".".join(parts[last + 1 :])
