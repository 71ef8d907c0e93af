"""Deep LoRA against LoRA with few examples, and with more rank than is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.config.options import Config, option
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import deviation, effective, grouped, integers, listed, mean, score, words
from bench.records.record import DoneRecord

if TYPE_CHECKING:
    from bench.figures import Figure

METHODS = ("lora", "deeplora")


@dataclass(frozen=True, kw_only=True)
class DeepLoRAFewShotConfig(Config):
    """Tasks and budget, the same for both methods."""

    task: str = option("glue/stsb", "A task of `bench list tasks`.")
    backbone: str = option("minilm", "The pretrained network.")
    samples: str = option("16,64,256", "Numbers of training examples, ascending.")
    ranks: str = option("2,4,8,16", "Nominal ranks, ascending, on the fewest examples.")
    steps: int = option(200, "Optimiser steps.", at_least=1)
    seeds: str = option("0,1,2,3,4", "A run each, on examples of its own.")


class DeepLoRAFewShot(Experiment):
    """Deep LoRA's claims (arXiv 2406.04112, Section 4): better with few examples, and indifferent to too much rank.

    Both methods on n examples, drawn by seed, and at every rank on the fewest. Checks: `fewest examples`, Deep LoRA's
    mean score is at least LoRA's; `used rank`, its effective rank at the largest nominal rank is below LoRA's;
    `rank sweep`, its mean score moves less between ranks than LoRA's. The control is the trivial way to a low rank,
    LoRA of rank 1 on all ranks' budget: it must not reach Deep LoRA's score on the fewest examples by itself.
    """

    place: ClassVar[str] = "Section 3.2, Deep LoRA"
    quick: ClassVar[Mapping[str, Any]] = {"samples": "16,64", "ranks": "2,8", "seeds": "0", "steps": 40}

    Config = DeepLoRAFewShotConfig

    config: DeepLoRAFewShotConfig

    def run(self) -> Outcome:
        """Train both on every number of examples and at every rank."""
        samples, ranks = ([int(text) for text in listed(given)] for given in (self.config.samples, self.config.ranks))
        few, most = samples[0], ranks[-1]
        by_samples = {n: self._records(METHODS, n, 8) for n in samples}
        by_rank = {r: self._records(METHODS, few, r) for r in ranks}
        scores = {(m, n): v for n, rs in by_samples.items() for m, v in grouped(rs, _method, score).items()}
        swept = {(m, r): v for r, rs in by_rank.items() for m, v in grouped(rs, _method, score).items()}
        used = {(m, r): v for r, rs in by_rank.items() for m, v in grouped(rs, _method, effective).items()}
        moved = {m: max(mean(swept[m, r]) for r in ranks) - min(mean(swept[m, r]) for r in ranks) for m in METHODS}
        gain = mean(scores["deeplora", few]) - mean(scores["lora", few])
        checks = [
            Check.at_least(f"fewest examples: deeplora − lora at n={few}", 0.0, gain),
            Check.at_most(f"used rank of deeplora at r={most}", mean(used["lora", most]), mean(used["deeplora", most])),
            Check.at_most("rank sweep: range of deeplora's score", moved["lora"], moved["deeplora"]),
        ]
        one = mean([score(r) for r in self._records(("lora",), few, 1)])
        control = Control(
            name="lora of rank 1",
            expected=f"below deeplora's {mean(scores['deeplora', few]):.3f} at n={few}",
            measured=one,
            held=one < mean(scores["deeplora", few]),
        )
        rows = [(f"n={n}, r=8", *(words(scores[m, n]) for m in METHODS), "") for n in samples]
        rows += [
            (
                f"n={few}, r={r}",
                *(words(swept[m, r]) for m in METHODS),
                " / ".join(f"{mean(used[m, r]):.2f}" for m in METHODS),
            )
            for r in ranks
        ]
        return Outcome(
            checks=checks,
            controls=[control],
            figure=_figure(scores, swept, used, samples, ranks),
            header=("", *METHODS, "effective rank of ΔW"),
            rows=rows,
            says=f"With {few} examples Deep LoRA is {gain:+.3f} from LoRA.",
        )

    def _records(self, methods: Sequence[str], samples: int, rank: int) -> Sequence[DoneRecord]:
        c = self.config
        return self.lab.run(
            methods=methods,
            tasks=c.task,
            backbones=c.backbone,
            train_samples=samples,
            set={"method.rank": rank},
            max_steps=c.steps,
            batch_size=min(16, samples),
            seeds=integers(c.seeds),
        )


def _method(record: DoneRecord) -> str:
    return record.spec.method


def _figure(
    scores: Mapping[Any, list[float]],
    swept: Mapping[Any, list[float]],
    used: Mapping[Any, list[float]],
    samples: Sequence[int],
    ranks: Sequence[int],
) -> Figure:
    from bench.figures import Figure, Panel, Series

    def lines(values: Mapping[Any, list[float]], x: Sequence[int]) -> list[Series]:
        return [
            Series(name=m, x=x, y=[mean(values[m, at]) for at in x], spread=[deviation(values[m, at]) for at in x])
            for m in METHODS
        ]

    few = f"with {samples[0]} examples"
    return Figure(
        title="Deep LoRA against LoRA",
        panels=[
            Panel(
                title="few examples",
                x="training examples",
                y="score on dev",
                content=lines(scores, samples),
                x_axis="log",
            ),
            Panel(title=f"rank, {few}", x="nominal rank", y="score on dev", content=lines(swept, ranks), x_axis="log"),
            Panel(
                title=f"used rank, {few}",
                x="nominal rank",
                y="effective rank of ΔW",
                content=lines(used, ranks),
                x_axis="log",
            ),
        ],
        columns=3,
    )
