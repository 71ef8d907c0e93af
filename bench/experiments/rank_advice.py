"""Whether the spectrum of the first gradients predicts the rank that an update turns out to need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bench.config.options import Config, Value, option
from bench.core.errors import BenchError, UsageError
from bench.experiments import Check, Control, Experiment, Outcome, parse_integers, parse_list
from bench.experiments.statistics import format_mean, mean, score, spearman
from bench.figures import Figure, Panel, Series

if TYPE_CHECKING:
    from bench.experiments.lab import Grid
    from bench.records.record import DoneRecord

IMAGES: Mapping[str, Value] = {"task.size": 16, "task.mode": "grey"}
"""So that a network of one task reads the images of another."""
NETWORKS: Mapping[str, Mapping[str, Value]] = {
    "vit": {"backbone.width": 64, "backbone.depth": 4, "backbone.heads": 4},
    "mlp": {},
    "resnet18": {},
}
TEXT = "minilm"
IMAGE = tuple(f"{network}@{task}" for network in NETWORKS for task in ("mnist", "cifar10"))
BATCHES = 8
"""First global batches whose mean gradient is measured."""
SHUFFLES = 2000
LEVEL = 0.95
"""Share of the permutations whose correlation must be exceeded."""
FEWEST = 2
"""Fewest pairs to compute anything from."""
LEAST = 12
"""Fewest pairs for a verdict."""
LIFT = 2.0
"""Standard errors by which an update must lift the score above that without it: of others the rank needed is noise."""
BETTER = 0.8
"""Largest error of the prediction relative to that of a constant."""


@dataclass(frozen=True, kw_only=True)
class RankAdviceConfig(Config):
    texts: str = option("glue/cola,glue/sst2,glue/mrpc,glue/rte,glue/stsb", "Tasks of minilm.")
    images: str = option("digits,mnist,cifar10", "Tasks of the others, but for the one that trained them.")
    backbones: str = option(",".join((TEXT, *IMAGE)), "minilm, or a network and the task that trained it: vit@mnist.")
    rank: int = option(16, "r of LoRA, and so the largest rank needed that can be seen.", at_least=2)
    pretrain_steps: int = option(300, "Optimiser steps of pretraining.", at_least=1)
    steps: int = option(200, "Optimiser steps of LoRA.", at_least=1)
    seeds: str = option("0,1,2", "Seeds, separated by commas; one run per seed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in parse_list(self.backbones):
            network, _, task = name.partition("@")
            if not (name == TEXT or (network in NETWORKS and task)):
                known = f"{TEXT}, and {', '.join(NETWORKS)} with a task: vit@mnist"
                raise UsageError(f"backbones={name}", f"known: {known}", "Choose among these.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A task and a backbone: `predicted` from gradients, ranks `needed` by the trained updates, and what these are."""

    task: str
    backbone: str
    predicted: Sequence[float]
    needed: Sequence[int]
    scores: Sequence[float]
    lift: float

    @property
    def counts(self) -> bool:
        return self.lift >= LIFT


class RankAdvice(Experiment[RankAdviceConfig]):
    """Spearman's correlation, over pairs of task and backbone, of the rank needed with the first gradients' rank.

    The survey's open question 3: can ranks be chosen before training? Predictor: ∂loss/∂W, the mean over the first
    eight batches, of every layer that LoRA adapts; its effective rank, the mean over layers. Measured: the rank needed
    of LoRA's trained ΔW, the median over seeds. A pair counts if the update lifts dev by two standard errors or more.

    Checks: the correlation exceeds that of 95 % of random permutations of the pairs; a rank predicted as the gradients'
    rank times a constant, both fitted to the logarithms of the other pairs, errs by at most .8 of what their geometric
    mean errs by. The control is a permutation of the ranks needed, which must fail the first.
    """

    Config = RankAdviceConfig
    place = "open question 3"
    quick: ClassVar[Mapping[str, Value]] = {
        "texts": "glue/sst2,glue/stsb",
        "backbones": "minilm",
        "steps": 100,
        "seeds": "0",
    }

    def run(self) -> Outcome:
        c = self.config
        names = parse_list(c.backbones)
        pairs = [
            self._pair(task, name)
            for name in names
            for task in parse_list(c.images if "@" in name else c.texts)
            if task != name.partition("@")[2]
        ]
        used = [pair for pair in pairs if pair.counts]
        if len(used) < FEWEST:
            raise BenchError(
                f"only {len(used)} of {len(pairs)} pairs learned something by their update",
                f"the update must lift dev by {LIFT:g} standard errors",
                "Give more steps: --set steps=400.",
            )
        x, y = ([f(pair) for pair in used] for f in (_predicted, _needed))
        source = np.random.default_rng(0)
        shuffled = [spearman(source.permutation(x), y) for _ in range(SHUFFLES)]
        limit, found = float(np.quantile(shuffled, LEVEL)), spearman(x, y)
        note = "" if len(used) >= LEAST else f"{len(used)} pairs, fewer than {LEAST}: no verdict"
        fitted, constant = _errors(np.log2(x), np.log2(y))
        checks = [
            Check(
                "correlation of rank needed and gradients' rank", limit, found, 0.0, found >= limit and not note, note
            ),
            Check.at_most("error of the prediction, of that of a constant", BETTER, fitted / max(constant, 1e-12)),
        ]
        again = spearman(source.permutation(y), y)
        control = Control.below("shuffled pairs", limit, again, f"below {limit:.3f}")
        rows = [_row(pair) for pair in pairs]
        header = ("task", "backbone", "score", "gradients' rank", "rank needed", "lift by ΔW (s.e.)")
        summary = (
            f"Correlation {found:+.2f} over {len(used)} pairs. A prediction from the others is wrong by a factor of "
            f"{2**fitted:.2f}, their mean by {2**constant:.2f}."
        )
        figure = _figure(used)
        return Outcome(checks=checks, controls=[control], figure=figure, header=header, rows=rows, summary=summary)

    def _pair(self, task: str, name: str) -> Pair:
        c = self.config
        backbone = name if name == TEXT else f"runs:{self._pretrained(name).run_id}"
        shape = IMAGES if "@" in name else {}
        grid: Grid = {
            "methods": "lora",
            "tasks": task,
            "backbones": backbone,
            "max_steps": c.steps,
            "seeds": parse_integers(c.seeds),
            "set": {**shape, "method.rank": c.rank},
        }
        records = self.lab.run(**grid)
        from bench.spectra.advice import gradient_ranks  # imports torch

        predicted = [
            mean([*gradient_ranks(method, data.first_batches(BATCHES)).values()])
            for method, data in self.lab.build(**grid)
        ]
        cuts = [record.truncation for record in records if record.truncation]
        lifts = [abs(cut.whole - cut.points[0].value) / max(cut.se, 1e-9) for cut in cuts]
        return Pair(
            task=task,
            backbone=name,
            predicted=predicted,
            needed=[c.rank if cut.rank_needed is None else cut.rank_needed for cut in cuts],
            scores=[*map(score, records)],
            lift=median(lifts),
        )

    def _pretrained(self, name: str) -> DoneRecord:
        """Train all of a network on the images of its task."""
        network, _, task = name.partition("@")
        [record] = self.lab.run(
            methods="full",
            tasks=task,
            backbones=network,
            batch_size=64,
            max_steps=self.config.pretrain_steps,
            seeds=0,
            set={**NETWORKS[network], **IMAGES, "runtime.save": "all", "runtime.truncation": "off"},
        )
        return record


def _predicted(pair: Pair) -> float:
    return mean(pair.predicted)


def _needed(pair: Pair) -> float:
    return float(max(1.0, median(pair.needed)))


def _errors(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean absolute errors of y, each predicted from the others: as x plus their mean difference, and as their mean."""
    count = len(y)
    fitted = [abs(y[i] - x[i] - (np.delete(y, i) - np.delete(x, i)).mean()) for i in range(count)]
    constant = [abs(y[i] - np.delete(y, i).mean()) for i in range(count)]
    return float(np.mean(fitted)), float(np.mean(constant))


def _row(pair: Pair) -> Sequence[str]:
    needed = "/".join(map(str, pair.needed))
    lift = f"{pair.lift:.1f}" if math.isfinite(pair.lift) else "–"
    used = lift if pair.counts else f"{lift}, does not count"
    return (pair.task, pair.backbone, format_mean(pair.scores), format_mean(pair.predicted, 1), needed, used)


def _figure(pairs: Sequence[Pair]) -> Figure:
    content = [
        Series(
            name=name,
            x=[_predicted(pair) for pair in pairs if pair.backbone == name],
            y=[_needed(pair) for pair in pairs if pair.backbone == name],
            form="points",
        )
        for name in dict.fromkeys(pair.backbone for pair in pairs)
    ]
    x = f"effective rank of the mean gradient of {BATCHES} batches"
    panel = Panel(title="pairs of task and backbone", x=x, y="rank needed", x_axis="log", y_axis="log", content=content)
    caption = "One point per task; means over layers, and the median over seeds of the rank needed."
    return Figure(title="Is the rank needed seen in the first gradients?", panels=[panel], caption=caption)
