"""Rank of a network's activations after masked pretraining (MAE, MLM), by mask rate and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome, parse_integers, parse_numbers
from bench.experiments.statistics import format_mean, mean, mean_series
from bench.figures import Figure, Panel

if TYPE_CHECKING:
    from bench.experiments.lab import Grid

LOW = 0.5
"""Low-rank features have an effective rank of at most this share of their width."""
Ranks = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(Config):
    """Options of both experiments; width and depth are those of their network."""

    width: int
    depth: int
    steps: int = option(1000, "Optimiser steps.", at_least=1)
    seeds: str


ConfigT = TypeVar("ConfigT", bound=MaskedConfig)


class MaskedPretraining(Experiment[ConfigT]):
    """Pretrain at several rates and measure the features of whole held-out examples.

    Attributes:
        rate_option: the option of the method that is the rate.
        usual: the rate in common use.
        training: arguments of `Lab.run` for pretraining alone.
    """

    method: ClassVar[str]
    backbone: ClassVar[str]
    rate_option: ClassVar[str]
    usual: ClassVar[float]
    task_options: ClassVar[Mapping[str, Value]] = {}
    training: ClassVar[Grid]

    def compare(self, task: str, rates: Sequence[float], shape: Mapping[str, Value]) -> Outcome:
        """Pretrain a network of that shape at ascending rates; measure these networks and the untrained one."""
        from bench.experiments.measurement import gaussian_rank

        width, seeds = self.config.width, parse_integers(self.config.seeds)
        pretrained: dict[float, list[Ranks]] = {}
        for rate in rates:
            grid: Grid = {
                **self.training,
                "methods": self.method,
                "tasks": task,
                "backbones": self.backbone,
                "set": {**shape, **self.task_options, self.rate_option: rate},
                "max_steps": self.config.steps,
                "seeds": seeds,
            }
            records = self.lab.run(**grid)
            pretrained[rate] = [self._measure(task, f"runs:{r.run_id}", r.spec.seed, {}) for r in records]
        untrained = [self._measure(task, self.backbone, seed, shape) for seed in seeds]
        last = {rate: [ranks[-1] for ranks in networks] for rate, networks in pretrained.items()}
        means = {rate: mean(values) for rate, values in last.items()}
        least, most = rates[0], rates[-1]
        usual = min(rates, key=lambda rate: abs(rate - self.usual))
        start = mean([ranks[-1] for ranks in untrained])
        name = f"rate {usual:g}: effective rank of the last block's features, of {width}"
        checks = [
            Check.at_most(name, LOW * width, means[usual]),
            Check.at_most(f"rate {most:g} against {least:g}: ratio of ranks", 1.0, means[most] / means[least]),
        ]
        controls = [
            Control.above("Gaussian features", LOW * width, gaussian_rank(width)),
            Control.above("untrained network", means[usual], start, f"above the {means[usual]:.1f} after pretraining"),
        ]
        networks = {**{f"rate {rate:g}": ranks for rate, ranks in pretrained.items()}, "untrained": untrained}
        by_block = {name: dict(enumerate(zip(*ranks, strict=True), 1)) for name, ranks in networks.items()}
        by_rate = ", ".join(f"{value:.1f} at {rate:g}" for rate, value in means.items())
        figure = _figure(by_block, last, width)
        header = ("", *(f"block {block}" for block in by_block["untrained"]))
        rows = [(name, *(format_mean(ranks, 1) for ranks in blocks.values())) for name, blocks in by_block.items()]
        summary = f"Last block, width {width}: effective rank {start:.1f} untrained, {by_rate}."
        return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)

    def _measure(self, task: str, backbone: str, seed: int, shape: Mapping[str, Value]) -> Ranks:
        """Measure a backbone; a linear probe builds it together with the data."""
        from bench.experiments.measurement import ranks_by_block

        options = {**shape, **self.task_options}
        [(method, data)] = self.lab.build(
            methods="linear", tasks=task, backbones=backbone, set=options, max_steps=1, seeds=seed
        )
        return ranks_by_block(method, data.val_dataloader()[0])


@dataclass(frozen=True, kw_only=True)
class MAERankConfig(MaskedConfig):
    task: str = option("digits", "An image task of `bench list tasks`.")
    ratios: str = option("0.1,0.25,0.5,0.75,0.9", "Shares of the patches that are masked, ascending.")
    width: int = option(64, "D of the ViT.", at_least=1)
    depth: int = option(4, "Blocks of the ViT.", at_least=1)
    seeds: str = option("0,1,2", "Seeds, separated by commas; one run per seed.")


class MAERank(MaskedPretraining[MAERankConfig]):
    """The survey's Section 4.3: features that MAEs learn are approximately low-rank, for which there is no proof yet.

    Measured: effective rank of the centred patch features behind every block, on whole held-out images, after masked
    autoencoding at several ratios, the smallest of which is nearly training without masks, and before it. Checks: at
    the ratio in common use, .75, the last block's features have an effective rank of at most half their width; the
    rank at the highest ratio is not above that at the lowest. Controls: Gaussian features are
    not low-rank, and the untrained network's should not be either, or the low rank is not due to pretraining.
    """

    Config = MAERankConfig
    summary = "Rank of a ViT's activations after masked autoencoding, by mask ratio and depth."
    place = "Section 4.3, masked autoencoders"
    quick: ClassVar[Mapping[str, Value]] = {"ratios": "0.1,0.75", "seeds": "0", "steps": 100}
    method, backbone, rate_option, usual = "mae", "vit", "method.mask_ratio", 0.75
    training: ClassVar[Grid] = {"batch_size": 64}

    def run(self) -> Outcome:
        c = self.config
        shape = {"backbone.width": c.width, "backbone.depth": c.depth, "backbone.heads": 4}
        return self.compare(c.task, parse_numbers(c.ratios), shape)


@dataclass(frozen=True, kw_only=True)
class MLMRankConfig(MaskedConfig):
    """Network and budget; the corpus is that of `bench run --task corpus`."""

    rates: str = option("0.02,0.15,0.4,0.8", "Shares of the tokens that are selected, ascending.")
    width: int = option(128, "D of the BERT.", at_least=1)
    depth: int = option(2, "Layers of the BERT.", at_least=1)
    seeds: str = option("0", "Seeds, separated by commas; one run per seed.")


class MLMRank(MaskedPretraining[MLMRankConfig]):
    """The survey's Section 4.3: features that masked language models learn are approximately low-rank.

    Measured: effective rank of the centred token features behind every layer, on whole held-out texts of the corpus,
    after masked language modelling at several rates, the smallest of which is nearly training without masks, and before
    it. Checks: at the rate in common use, .15, the last layer's features have an effective rank of at most half their
    width; the rank at the highest rate is not above that at the lowest. Controls: Gaussian features are not low-rank,
    and the untrained network's should not be either, or the low rank is not due to pretraining.
    """

    Config = MLMRankConfig
    summary = "Rank of a BERT's activations after masked language modelling, by mask rate and depth."
    place = "Section 4.3, masked language models"
    quick: ClassVar[Mapping[str, Value]] = {"rates": "0.02,0.15", "seeds": "0", "steps": 60}
    method, backbone, rate_option, usual = "mlm", "bert", "method.rate", 0.15
    task_options: ClassVar[Mapping[str, Value]] = {"task.max_length": 64}
    training: ClassVar[Grid] = {"batch_size": 32, "lr": 1e-3}

    def run(self) -> Outcome:
        c = self.config
        shape = {"backbone.hidden": c.width, "backbone.layers": c.depth, "backbone.heads": 2}
        return self.compare("corpus", parse_numbers(c.rates), shape)


def _figure(by_block: Mapping[str, Mapping[int, Ranks]], last: Mapping[float, Sequence[float]], width: int) -> Figure:
    depth = [
        mean_series(name, ranks, "dashed" if name == "untrained" else "line", whiskers=False)
        for name, ranks in by_block.items()
    ]
    rank, by_rate = "effective rank of features", [mean_series("last block", last)]
    panels = [
        Panel(title="over depth", x="block", y=rank, content=depth),
        Panel(title="last block", x="mask rate", y=rank, content=by_rate),
    ]
    caption = f"Centred token features of whole held-out examples; width {width}."
    return Figure(title="Masked pretraining and the rank of activations", panels=panels, caption=caption)
