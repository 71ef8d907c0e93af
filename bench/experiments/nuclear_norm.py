"""A nuclear-norm penalty lowers the rank of what training changes, the more the larger it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from bench.config.options import Value, option
from bench.core.errors import UsageError
from bench.experiments import Check, Control, Experiment, FullTrainingConfig, Outcome, parse_numbers
from bench.experiments.statistics import effective_rank, format_mean, mean, mean_series, score
from bench.figures import Figure, Panel, Series

Groups = Mapping[float, Sequence[float]]
"""Values over seeds by strength."""
RISE = 0.02
"""How much the rank may rise from one penalty to the next, relative to the rank without a penalty."""
LOST = 0.02
"""How much lower an equal score may be."""


@dataclass(frozen=True, kw_only=True)
class NuclearNormConfig(FullTrainingConfig):
    strengths: str = option("0,3e-5,1e-4,3e-4,1e-3,3e-3", "λ, ascending, the first of them 0.")
    decays: str = option("0.1,1,3", "Weight decays of the control (decoupled, times the learning rate).")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = parse_numbers(self.strengths)
        if len(given) < 2 or given[0] != 0 or sorted(given) != given:
            known = "at least two numbers, ascending, the first of them 0"
            raise UsageError(f"strengths={self.strengths}", known, "Write 0,1e-3.")


class NuclearNorm(Experiment[NuclearNormConfig]):
    """loss + λ·Σ‖ΔW‖_*: effective rank of ΔW, mean over layers and seeds, against λ.

    Checks: `largest rise`, from one λ to the next, relative to the rank at λ = 0 (it must not rise); `rank at equal
    score`, the least effective rank among those λ that lose at most .02 of the score, relative to the rank at λ = 0 (at
    most .5). The control is weight decay, which penalises large weights and not many directions: over the decays
    that lose at most .02 of the score, the rank must not fall by half.
    """

    Config = NuclearNormConfig
    place = "Section 4, nuclear norm"
    quick: ClassVar[Mapping[str, Value]] = {"seeds": "0", "steps": 150, "strengths": "0,1e-3,3e-3"}

    def run(self) -> Outcome:
        strengths, decays = parse_numbers(self.config.strengths), parse_numbers(self.config.decays)
        ranks, scores = self._ranks_and_scores("penalty.nuclear", strengths)
        decayed_ranks, decayed_scores = self._ranks_and_scores("optim.weight_decay", decays)
        bare, enough = mean(ranks[0.0]), mean(scores[0.0]) - LOST
        means = [mean(ranks[s]) / bare for s in strengths]
        free = [mean(ranks[s]) / bare for s in strengths if mean(scores[s]) >= enough]
        checks = [
            Check.at_most("largest rise", 0.0, max(b - a for a, b in pairwise(means)), RISE),
            Check.at_most("rank at equal score", 0.5, min(free)),
        ]
        least = min((mean(decayed_ranks[s]) / bare for s in decays if mean(decayed_scores[s]) >= enough), default=1.0)
        rows = [(f"λ = {s:g}", format_mean(scores[s]), format_mean(ranks[s], 2)) for s in strengths]
        rows += [(f"decay {s:g}", format_mean(decayed_scores[s]), format_mean(decayed_ranks[s], 2)) for s in decays]
        panels = [_panel("rank", "effective rank of ΔW", ranks), _panel("score", "score on dev", scores)]
        controls = [Control.above("weight decay", 0.5, least, "rank at equal score above half")]
        figure = Figure(title=f"Nuclear norm: {self.config.backbone} on {self.config.task}", panels=panels)
        header = ("", "score", "effective rank of ΔW")
        summary = f"Effective rank falls from {bare:.1f} to {min(free) * bare:.1f}, the score by at most {LOST:g}."
        return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)

    def _ranks_and_scores(self, name: str, values: Sequence[float]) -> tuple[Groups, Groups]:
        ranks: dict[float, list[float]] = {}
        scores: dict[float, list[float]] = {}
        for value in values:
            records = self.lab.run(**self.config.grid(methods="full", set={name: value} if value else {}))
            ranks[value] = [effective_rank(record) for record in records]
            scores[value] = [score(record) for record in records]
        return ranks, scores


def _panel(title: str, y: str, groups: Groups) -> Panel:
    line = mean_series("with penalty", {s: values for s, values in groups.items() if s})
    level = Series(name="without", x=line.x, y=[mean(groups[0.0])] * len(line.x), form="dashed")
    return Panel(title=title, x="λ of the nuclear norm", y=y, content=[line, level], x_axis="log")
