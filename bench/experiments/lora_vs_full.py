"""LoRA comes close to full fine-tuning with a small share of the parameters; a frozen network does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.config.options import Config, option
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import deviation, effective, grouped, integers, listed, mean, score, share, words
from bench.records.record import Record

if TYPE_CHECKING:
    from bench.figures import Figure

CLOSE = 0.02
"""How far below full fine-tuning LoRA's mean score may be."""
SMALL = 0.02
"""Share of the parameters it may train."""
METHODS = ("full", "lora", "linear")


@dataclass(frozen=True, kw_only=True)
class LoRAVsFullConfig(Config):
    """Tasks and budget, the same for all methods."""

    tasks: str = option("glue/sst2,glue/mrpc,glue/stsb,glue/rte", "Tasks of `bench list tasks`.")
    backbone: str = option("minilm", "The pretrained network.")
    steps: int = option(200, "Optimiser steps.", at_least=1)
    batch_size: int = option(16, "Examples per step.")
    seeds: str = option("0,1,2", "A run each.")


class LoRAVsFull(Experiment):
    """Full fine-tuning, LoRA and a linear probe on the same tasks, seeds and budget (digest, first experiments).

    Each method has its own default learning rate. Checks: `score`, LoRA's mean over tasks and seeds is at most .02
    below full fine-tuning's; `parameters`, it trains at most 2 % of all; `rank`, full fine-tuning changes matrices by
    updates whose effective rank is at most half of what their shape allows. The control trains the head alone, which
    must be further below than .02.
    """

    place: ClassVar[str] = "digest, first experiments"
    quick: ClassVar[Mapping[str, Any]] = {"tasks": "glue/stsb", "seeds": "0", "steps": 100}

    Config = LoRAVsFullConfig

    config: LoRAVsFullConfig

    def run(self) -> Outcome:
        """Train all three on every task."""
        c = self.config
        records = self.lab.run(
            methods=METHODS,
            tasks=listed(c.tasks),
            backbones=c.backbone,
            seeds=integers(c.seeds),
            max_steps=c.steps,
            batch_size=c.batch_size,
        )
        cells = grouped(records, lambda r: (r.spec.method, r.spec.task), score)
        tasks = list(dict.fromkeys(task for _, task in cells))
        average = {m: mean([mean(cells[m, task]) for task in tasks]) for m in METHODS}
        shares = {m: mean(values) for m, values in grouped(records, lambda r: r.spec.method, share).items()}
        used = mean([rank for r in records if r.spec.method == "full" for rank in _used(r)])
        checks = [
            Check.at_least("score: lora − full", 0.0, average["lora"] - average["full"], CLOSE),
            Check.at_most("parameters: share of lora", SMALL, shares["lora"]),
            Check.at_most("rank: used share of full's ΔW", 0.5, used),
        ]
        behind = average["linear"] - average["full"]
        control = Control(
            name="linear", expected=f"more than {CLOSE:g} below full", measured=behind, held=behind < -CLOSE
        )
        rows = [
            (m, *(words(cells[m, task]) for task in tasks), f"{average[m]:.3f}", f"{shares[m]:.2%}") for m in METHODS
        ]
        return Outcome(
            checks=checks,
            controls=[control],
            figure=_figure(records, cells, tasks),
            header=("method", *tasks, "mean", "trained"),
            rows=rows,
            says=f"LoRA trains {shares['lora']:.2%} and is {average['lora'] - average['full']:+.3f} from full.",
        )


def _used(record: Record) -> list[float]:
    """Effective rank of ΔW relative to the largest that its shape allows, by layer."""
    return [layer.effective / layer.nominal for layer in record.ranks if layer.nominal]


def _figure(records: Sequence[Record], cells: Mapping[Any, list[float]], tasks: Sequence[str]) -> Figure:
    from bench.figures import Figure, Panel, Series

    bars = [
        Series(
            name=m,
            x=tasks,
            y=[mean(cells[m, task]) for task in tasks],
            spread=[deviation(cells[m, task]) for task in tasks],
            form="bars",
        )
        for m in METHODS
    ]
    adapted = [m for m in METHODS if m != "linear"]
    points = [
        Series(
            name=m,
            x=tasks,
            y=[mean([effective(r) for r in records if (r.spec.method, r.spec.task) == (m, t)]) for t in tasks],
            form="bars",
        )
        for m in adapted
    ]
    return Figure(
        title="LoRA against full fine-tuning",
        panels=[
            Panel(title="score", x="task", y="score on dev", content=bars),
            Panel(title="rank of the update", x="task", y="effective rank of ΔW", content=points),
        ],
    )
