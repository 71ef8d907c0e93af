"""Deep LoRA against LoRA with few examples, and with more rank than is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import Value, option
from bench.experiments import Check, Control, Experiment, Outcome, TrainingConfig, parse_integers
from bench.experiments.statistics import by_method, effective_rank, format_mean, mean, mean_series, score
from bench.figures import Figure, Panel
from bench.records.record import DoneRecord

METHODS = ("lora", "deeplora")
ByMethod = Mapping[tuple[str, int], Sequence[float]]
"""Values over seeds by method, and number of examples or nominal rank."""


@dataclass(frozen=True, kw_only=True)
class DeepLoRAFewShotConfig(TrainingConfig):
    samples: str = option("16,64,256", "Numbers of training examples, ascending.")
    ranks: str = option("2,4,8,16", "Nominal ranks, ascending, on the fewest examples.")
    seeds: str = option("0,1,2,3,4", "Seeds, separated by commas; one run per seed, each on its own examples.")


class DeepLoRAFewShot(Experiment[DeepLoRAFewShotConfig]):
    """Deep LoRA's claims (arXiv 2406.04112, Section 4): better with few examples, and robust to too large a rank.

    Both methods train on n examples, drawn by seed, and with every rank on the fewest examples. Checks: `fewest
    examples`, Deep LoRA's mean score is at least LoRA's; `used rank`, its effective rank at the largest nominal rank is
    below LoRA's; `rank sweep`, its mean score varies less between ranks than LoRA's. The control is the trivial way to
    a low rank, LoRA of rank 1 with the same budget: it must not reach Deep LoRA's score on the fewest examples.
    """

    Config = DeepLoRAFewShotConfig
    place = "Section 3.2, Deep LoRA"
    quick: ClassVar[Mapping[str, Value]] = {"samples": "16,64", "ranks": "2,8", "seeds": "0", "steps": 40}

    def run(self) -> Outcome:
        samples, ranks = parse_integers(self.config.samples), parse_integers(self.config.ranks)
        few, most = samples[0], ranks[-1]
        by_samples = {n: self._records(METHODS, n, 8) for n in samples}
        by_rank = {r: self._records(METHODS, few, r) for r in ranks}
        scores, swept = by_method(by_samples, METHODS, score), by_method(by_rank, METHODS, score)
        used = by_method(by_rank, METHODS, effective_rank)
        ranges = {m: max(mean(swept[m, r]) for r in ranks) - min(mean(swept[m, r]) for r in ranks) for m in METHODS}
        deeplora = mean(scores["deeplora", few])
        gain = deeplora - mean(scores["lora", few])
        checks = [
            Check.at_least(f"fewest examples: deeplora − lora at n={few}", 0.0, gain),
            Check.at_most(f"used rank of deeplora at r={most}", mean(used["lora", most]), mean(used["deeplora", most])),
            Check.at_most("rank sweep: range of deeplora's score", ranges["lora"], ranges["deeplora"]),
        ]
        rank_1 = mean([score(record) for record in self._records(("lora",), few, 1)])
        control = Control.below("lora of rank 1", deeplora, rank_1, f"below deeplora's {deeplora:.3f} at n={few}")
        rows = [(f"n={n}, r=8", *(format_mean(scores[m, n]) for m in METHODS), "") for n in samples]
        for r in ranks:
            both = " / ".join(f"{mean(used[m, r]):.2f}" for m in METHODS)
            rows.append((f"n={few}, r={r}", *(format_mean(swept[m, r]) for m in METHODS), both))
        figure = _figure(scores, swept, used, few)
        header = ("", *METHODS, "effective rank of ΔW")
        summary = f"With {few} examples the score of Deep LoRA minus that of LoRA is {gain:+.3f}."
        return Outcome(checks=checks, controls=[control], figure=figure, header=header, rows=rows, summary=summary)

    def _records(self, methods: Sequence[str], samples: int, rank: int) -> Sequence[DoneRecord]:
        batch_size, options = min(16, samples), {"method.rank": rank}
        grid = self.config.grid(methods=methods, train_samples=samples, batch_size=batch_size, set=options)
        return self.lab.run(**grid)


def _figure(scores: ByMethod, swept: ByMethod, used: ByMethod, few: int) -> Figure:
    def panel(title: str, x: str, y: str, values: ByMethod) -> Panel:
        lines = [mean_series(m, {at: v for (name, at), v in values.items() if name == m}) for m in METHODS]
        return Panel(title=title, x=x, y=y, content=lines, x_axis="log")

    panels = [
        panel("few examples", "training examples", "score on dev", scores),
        panel(f"rank, with {few} examples", "nominal rank", "score on dev", swept),
        panel(f"used rank, with {few} examples", "nominal rank", "effective rank of ΔW", used),
    ]
    return Figure(title="Deep LoRA against LoRA", panels=panels, columns=3)
