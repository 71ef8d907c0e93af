"""LoRA comes close to full fine-tuning with a small share of the parameters; a frozen network does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome, parse_integers, parse_list
from bench.experiments.statistics import effective_rank, format_mean, grouped, mean, mean_series, score, trained_share
from bench.figures import Figure, Panel
from bench.records.record import DoneRecord, Record

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
        scores = grouped(records, _method_and_task, score)
        tasks = list(dict.fromkeys(task for _, task in scores))
        average = {m: mean([mean(scores[m, task]) for task in tasks]) for m in METHODS}
        shares = {m: mean(values) for m, values in grouped(records, lambda r: r.spec.method, trained_share).items()}
        used = mean([share for r in records if r.spec.method == "full" for share in _used_shares(r)])
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
        return Outcome(
            checks=checks,
            controls=[control],
            figure=_figure(records, scores, tasks),
            header=("method", *tasks, "mean", "trained"),
            rows=rows,
            summary=f"LoRA trains {shares['lora']:.2%} of the parameters; its score is {gap:+.3f} relative to full.",
        )


def _method_and_task(record: Record) -> tuple[str, str]:
    return record.spec.method, record.spec.task


def _used_shares(record: Record) -> list[float]:
    """Return the effective rank of ΔW relative to the largest that its shape allows, by layer."""
    return [layer.effective / layer.nominal for layer in record.ranks if layer.nominal]


def _figure(
    records: Sequence[DoneRecord], scores: Mapping[tuple[str, str], Sequence[float]], tasks: Sequence[str]
) -> Figure:
    ranks = grouped([r for r in records if r.spec.method != "linear"], _method_and_task, effective_rank)
    methods = [m for m in METHODS if m != "linear"]
    bars = [mean_series(m, {task: scores[m, task] for task in tasks}, "bars") for m in METHODS]
    rank_bars = [mean_series(m, {t: ranks[m, t] for t in tasks}, "bars", whiskers=False) for m in methods]
    return Figure(
        title="LoRA against full fine-tuning",
        panels=[
            Panel(title="score", x="task", y="score on dev", content=bars),
            Panel(title="rank of the update", x="task", y="effective rank of ΔW", content=rank_bars),
        ],
    )
