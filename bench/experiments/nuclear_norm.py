"""A nuclear-norm penalty lowers the rank of what training changes, the more the larger it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from bench.config.options import Config, option
from bench.core.errors import UsageError
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import deviation, effective, integers, listed, mean, score, words
from bench.records.record import DoneRecord

if TYPE_CHECKING:
    from bench.figures import Figure

RISE = 0.02
"""Of the rank without a penalty: how much larger the rank may be at the next penalty."""
LOST = 0.02
"""Of the score that may be lost where the rank is said to be had for nothing."""


@dataclass(frozen=True, kw_only=True)
class NuclearNormConfig(Config):
    """A network that is trained in full."""

    task: str = option("digits", "Any task of `bench list tasks`.")
    backbone: str = option("mlp", "Any backbone that reads it.")
    strengths: str = option("0,3e-5,1e-4,3e-4,1e-3,3e-3", "λ, ascending, the first of them 0.")
    decays: str = option("0.1,1,3", "Weight decays of the control (decoupled, times the learning rate).")
    steps: int = option(600, "Optimiser steps.", at_least=1)
    batch_size: int = option(64, "Examples per step.")
    lr: float = option(1e-3, "Learning rate.")
    seeds: str = option("0,1,2", "A run each.")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        try:
            given = [float(text) for text in listed(self.strengths)]
        except ValueError:
            given = []
        if len(given) < 2 or given[0] != 0 or sorted(given) != given:
            raise UsageError(
                f"strengths={self.strengths}",
                "at least two numbers, ascending, the first of them 0",
                "Write 0,1e-3.",
            )


class NuclearNorm(Experiment):
    """loss + λ·Σ‖ΔW‖_*: effective rank of ΔW, mean over layers and seeds, against λ.

    Checks: `largest rise`, from one λ to the next, relative to the rank at λ = 0 (it must not rise); `rank at equal
    score`, the least effective rank among those λ that lose at most .02 of the score, relative to the rank at λ = 0 (at
    most .5). The control is weight decay, which asks for small weights and not for few directions: over the decays
    that lose at most .02 of the score, the rank must not fall by half.
    """

    place: ClassVar[str] = "Section 4, nuclear norm"
    quick: ClassVar[Mapping[str, Any]] = {"seeds": "0", "steps": 150, "strengths": "0,1e-3,3e-3"}

    Config = NuclearNormConfig

    config: NuclearNormConfig

    def run(self) -> Outcome:
        """Train at every λ, and at every decay."""
        strengths = [float(text) for text in listed(self.config.strengths)]
        found = {s: self._records("penalty.nuclear", s) for s in strengths}
        decays = {float(text): self._records("optim.weight_decay", float(text)) for text in listed(self.config.decays)}
        ranks, scores = ({s: [value(r) for r in rs] for s, rs in found.items()} for value in (effective, score))
        bare = mean(ranks[0.0])
        means = [mean(ranks[s]) / bare for s in strengths]
        free = [mean(ranks[s]) / bare for s in strengths if mean(scores[s]) >= mean(scores[0.0]) - LOST]
        checks = [
            Check.at_most("largest rise", 0.0, max(b - a for a, b in pairwise(means)), RISE),
            Check.at_most("rank at equal score", 0.5, min(free)),
        ]
        decayed = [
            mean([effective(r) for r in rs]) / bare
            for rs in decays.values()
            if mean([score(r) for r in rs]) >= mean(scores[0.0]) - LOST
        ]
        least = min(decayed, default=1.0)
        control = Control(
            name="weight decay", expected="rank at equal score above half", measured=least, held=least > 0.5
        )
        rows = [(f"λ = {s:g}", words(scores[s]), words(ranks[s], 2)) for s in strengths]
        rows += [
            (f"decay {s:g}", words([score(r) for r in rs]), words([effective(r) for r in rs], 2))
            for s, rs in decays.items()
        ]
        return Outcome(
            checks=checks,
            controls=[control],
            figure=self._figure(ranks, scores),
            header=("", "score", "effective rank of ΔW"),
            rows=rows,
            says=f"Effective rank falls from {bare:.1f} to {min(free) * bare:.1f} and the score by {LOST:g} at most.",
        )

    def _records(self, option: str, value: float) -> Sequence[DoneRecord]:
        c = self.config
        return self.lab.run(
            methods="full",
            tasks=c.task,
            backbones=c.backbone,
            lr=c.lr,
            max_steps=c.steps,
            batch_size=c.batch_size,
            seeds=integers(c.seeds),
            set={option: value} if value else {},
        )

    def _figure(self, ranks: Mapping[float, list[float]], scores: Mapping[float, list[float]]) -> Figure:
        from bench.figures import Figure, Panel, Series

        penalised = [s for s in ranks if s]

        def panel(title: str, y: str, values: Mapping[float, list[float]]) -> Panel:
            line = Series(
                name="with penalty",
                x=penalised,
                y=[mean(values[s]) for s in penalised],
                spread=[deviation(values[s]) for s in penalised],
            )
            level = Series(name="without", x=penalised, y=[mean(values[0.0])] * len(penalised), form="dashed")
            return Panel(title=title, x="λ of the nuclear norm", y=y, content=[line, level], x_axis="log")

        panels = [panel("rank", "effective rank of ΔW", ranks), panel("score", "score on dev", scores)]
        return Figure(title=f"Nuclear norm: {self.config.backbone} on {self.config.task}", panels=panels)
