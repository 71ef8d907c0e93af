"""LoRA comes close to full fine-tuning with a small share of the parameters; a frozen network does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome, parse_integers, parse_list
from bench.experiments.statistics import by_method, effective_rank, format_mean, mean, mean_series, score
from bench.figures import Figure, Panel

CLOSE = 0.02
"""How far LoRA's mean score may be below that of full fine-tuning."""
SMALL = 0.02
"""Share of the parameters that LoRA may train."""
UPDATING = ("full", "lora")
METHODS = (*UPDATING, "linear")


@dataclass(frozen=True, kw_only=True)
class LoRAVsFullConfig(Config):
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
        c = self.config
        records = self.lab.run(
            methods=METHODS,
            tasks=parse_list(c.tasks),
            backbones=c.backbone,
            seeds=parse_integers(c.seeds),
            max_steps=c.steps,
            batch_size=c.batch_size,
        )
        tasks = list(dict.fromkeys(record.spec.task for record in records))
        by_task = {task: [record for record in records if record.spec.task == task] for task in tasks}
        scores = by_method(by_task, METHODS, score)
        ranks = by_method(by_task, UPDATING, effective_rank)
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
        bars = [mean_series(m, {t: scores[m, t] for t in tasks}, "bars") for m in METHODS]
        rank_bars = [mean_series(m, {t: ranks[m, t] for t in tasks}, "bars", whiskers=False) for m in UPDATING]
        panels = [
            Panel(title="score", x="task", y="score on dev", content=bars),
            Panel(title="rank of the update", x="task", y="effective rank of ΔW", content=rank_bars),
        ]
        figure = Figure(title="LoRA against full fine-tuning", panels=panels)
        header = ("method", *tasks, "mean", "trained")
        summary = f"LoRA trains {shares['lora']:.2%} of the parameters; its score is {gap:+.3f} relative to full."
        return Outcome(checks=checks, controls=[control], figure=figure, header=header, rows=rows, summary=summary)
