"""LoRA comes close to full fine-tuning with a small share of the parameters; a frozen network does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome, parse_integers, parse_list
from bench.experiments.statistics import effective_rank, format_mean, mean, mean_series, score
from bench.figures import Figure, Panel, Series
from bench.records.record import DoneRecord

CLOSE = 0.02
"""How far LoRA's mean score may be below that of full fine-tuning."""
SMALL = 0.02
"""Share of the parameters that LoRA may train."""
METHODS = ("full", "lora", "linear")


@dataclass(frozen=True, kw_only=True)
class LoRAVsFullConfig(Config):
    """Tasks and budget, the same for all methods."""

    tasks: str = option("glue/sst2,glue/mrpc,glue/stsb,glue/rte", "Tasks of `bench list tasks`.")
    backbone: str = option("minilm", "The pretrained network.")
    steps: int = option(200, "Optimiser steps.", at_least=1)
    batch_size: int = option(16, "Examples per step.")
    seeds: str = option("0,1,2", "Seeds, separated by commas; one run per seed.")


class LoRAVsFull(Experiment[LoRAVsFullConfig]):
    """Full fine-tuning, LoRA and a linear probe on the same tasks, seeds and budget (digest, first experiments).

    Each method has its own default learning rate. Checks: `score`, LoRA's mean over tasks and seeds is at most .02
    below full fine-tuning's; `parameters`, it trains at most 2 % of all; `rank`, full fine-tuning changes matrices by
    updates whose effective rank is at most half of what their shape allows. The control trains the head alone, which
    must be further below than .02.
    """

    Config = LoRAVsFullConfig
    place = "digest, first experiments"
    quick: ClassVar[Mapping[str, Value]] = {"tasks": "glue/stsb", "seeds": "0", "steps": 100}

    def run(self) -> Outcome:
        """Train all three methods on every task."""
        c = self.config
        records = self.lab.run(
            methods=METHODS,
            tasks=parse_list(c.tasks),
            backbones=c.backbone,
            seeds=parse_integers(c.seeds),
            max_steps=c.steps,
            batch_size=c.batch_size,
        )
        groups: dict[tuple[str, str], list[DoneRecord]] = {}
        for record in records:
            groups.setdefault((record.spec.method, record.spec.task), []).append(record)
        tasks = list(dict.fromkeys(task for _, task in groups))
        scores = {key: [score(record) for record in group] for key, group in groups.items()}
        average = {m: mean([mean(scores[m, task]) for task in tasks]) for m in METHODS}
        shares = {
            m: mean([r.params.trainable / r.params.total for r in records if r.spec.method == m]) for m in METHODS
        }
        layers = [layer for r in records if r.spec.method == "full" for layer in r.ranks]
        used = mean([layer.effective / layer.nominal for layer in layers if layer.nominal])
        gap = average["lora"] - average["full"]
        checks = [
            Check.at_least("score: lora − full", 0.0, gap, CLOSE),
            Check.at_most("parameters: share of lora", SMALL, shares["lora"]),
            Check.at_most("rank: used share of full's ΔW", 0.5, used),
        ]
        behind = average["linear"] - average["full"]
        control = Control.below("linear", -CLOSE, behind, f"more than {CLOSE:g} below full")
        rows = [
            (m, *(format_mean(scores[m, task]) for task in tasks), f"{average[m]:.3f}", f"{shares[m]:.2%}")
            for m in METHODS
        ]
        figure = _figure(groups, tasks)
        header = ("method", *tasks, "mean", "trained")
        summary = f"LoRA trains {shares['lora']:.2%} of the parameters; its score is {gap:+.3f} relative to full."
        return Outcome(checks=checks, controls=[control], figure=figure, header=header, rows=rows, summary=summary)


def _figure(groups: Mapping[tuple[str, str], Sequence[DoneRecord]], tasks: Sequence[str]) -> Figure:
    def bars(method: str, value: Callable[[DoneRecord], float], *, whiskers: bool = True) -> Series:
        values = {task: [value(record) for record in groups[method, task]] for task in tasks}
        return mean_series(method, values, "bars", whiskers=whiskers)

    scores = [bars(method, score) for method in METHODS]
    ranks = [bars(method, effective_rank, whiskers=False) for method in METHODS if method != "linear"]
    panels = [
        Panel(title="score", x="task", y="score on dev", content=scores),
        Panel(title="rank of the update", x="task", y="effective rank of ΔW", content=ranks),
    ]
    return Figure(title="LoRA against full fine-tuning", panels=panels)
