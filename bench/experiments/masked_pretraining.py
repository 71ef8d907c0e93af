"""Rank of a network's activations after masked pretraining (MAE, MLM), by mask rate and depth."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome, parse_integers, parse_numbers
from bench.experiments.statistics import format_mean, mean, mean_series
from bench.figures import Figure, Panel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api.batching import Batch
    from bench.api.method import Method
    from bench.experiments.lab import Grid

LOW = 0.5
"""Low-rank features have an effective rank of at most this share of their width."""
ROWS_PER_DIMENSION = 8
"""Rows of Gaussian features, relative to their width: enough to estimate their covariance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Effective rank of centred token features behind every block, on whole held-out examples.

    Attributes:
        width: D.
        ranks: by block, in order.
    """

    width: int
    ranks: tuple[float, ...]


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
        method, backbone: their names.
        rate_option: the option of the method that is the rate.
        usual: the rate in common use.
        task_options: options of the task.
        training: arguments of `Lab.run` for pretraining alone.
    """

    method: ClassVar[str]
    backbone: ClassVar[str]
    rate_option: ClassVar[str]
    usual: ClassVar[float]
    task_options: ClassVar[Mapping[str, Value]] = {}
    training: ClassVar[Grid]

    @property
    @abstractmethod
    def task(self) -> str:
        """The task."""

    @property
    @abstractmethod
    def rates(self) -> Sequence[float]:
        """Rates, ascending."""

    @property
    @abstractmethod
    def shape(self) -> Mapping[str, Value]:
        """Options of the network."""

    def run(self) -> Outcome:
        """Pretrain at every rate; measure these networks and the untrained one."""
        seeds = parse_integers(self.config.seeds)
        profiles = {rate: self._pretrained_profiles(rate, seeds) for rate in self.rates}
        untrained = [self._profile(self.backbone, seed, self.shape) for seed in seeds]
        width = untrained[0].width
        last = {rate: [p.ranks[-1] for p in several] for rate, several in profiles.items()}
        means = {rate: mean(values) for rate, values in last.items()}
        least, most = self.rates[0], self.rates[-1]
        usual = min(self.rates, key=lambda rate: abs(rate - self.usual))
        start = mean([p.ranks[-1] for p in untrained])
        name = f"rate {usual:g}: effective rank of the last block's features, of {width}"
        checks = [
            Check.at_most(name, LOW * width, means[usual]),
            Check.at_most(f"rate {most:g} against {least:g}: ratio of ranks", 1.0, means[most] / means[least]),
        ]
        controls = [
            Control.above("Gaussian features", LOW * width, gaussian_rank(width)),
            Control.above("untrained network", means[usual], start, f"above the {means[usual]:.1f} after pretraining"),
        ]
        rows = {**{f"rate {rate:g}": several for rate, several in profiles.items()}, "untrained": untrained}
        by_rate = ", ".join(f"{value:.1f} at {rate:g}" for rate, value in means.items())
        return Outcome(
            checks=checks,
            controls=controls,
            figure=_figure(rows, last, width),
            header=("", *(f"block {i + 1}" for i in range(len(untrained[0].ranks)))),
            rows=[
                (name, *(format_mean(ranks, 1) for ranks in by_block(several).values()))
                for name, several in rows.items()
            ],
            summary=f"Last block, width {width}: effective rank {start:.1f} untrained, {by_rate}.",
        )

    def _pretrained_profiles(self, rate: float, seeds: Sequence[int]) -> list[Profile]:
        grid: Grid = {
            **self.training,
            "methods": self.method,
            "tasks": self.task,
            "backbones": self.backbone,
            "set": {**self.shape, **self.task_options, self.rate_option: rate},
            "max_steps": self.config.steps,
            "seeds": seeds,
        }
        return [self._profile(f"runs:{r.run_id}", r.spec.seed, {}) for r in self.lab.run(**grid)]

    def _profile(self, backbone: str, seed: int, shape: Mapping[str, Value]) -> Profile:
        """Measure a backbone; a linear probe builds it together with the data."""
        options = {**shape, **self.task_options}
        [(method, data)] = self.lab.build(
            methods="linear", tasks=self.task, backbones=backbone, set=options, max_steps=1, seeds=seed
        )
        return profile(method, data.val_dataloader()[0])


@dataclass(frozen=True, kw_only=True)
class MAERankConfig(MaskedConfig):
    """Network, data and budget."""

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

    @property
    def task(self) -> str:
        """The task."""
        return self.config.task

    @property
    def rates(self) -> Sequence[float]:
        """Mask ratios, ascending."""
        return parse_numbers(self.config.ratios)

    @property
    def shape(self) -> Mapping[str, Value]:
        """Options of the ViT."""
        return {"backbone.width": self.config.width, "backbone.depth": self.config.depth, "backbone.heads": 4}


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

    @property
    def task(self) -> str:
        """The task."""
        return "corpus"

    @property
    def rates(self) -> Sequence[float]:
        """Mask rates, ascending."""
        return parse_numbers(self.config.rates)

    @property
    def shape(self) -> Mapping[str, Value]:
        """Options of the BERT."""
        return {"backbone.hidden": self.config.width, "backbone.layers": self.config.depth, "backbone.heads": 2}


def profile(method: Method, batches: Iterable[Batch]) -> Profile:
    """Return the ranks of a network's features, in evaluation mode."""
    import torch

    from bench.spectra.tracking.sources import modules

    moments: dict[int, tuple[int, Tensor, Tensor]] = {}
    """By block: number of rows, their sum (D,), and Σ x·xᵀ (D, D)."""
    mask: Tensor | None = None

    def accumulate(index: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first: Tensor = output[0] if isinstance(output, tuple | list) else output
            x = first.detach()
            x = x[mask.bool()] if mask is not None and mask.shape == x.shape[:-1] else x.reshape(-1, x.shape[-1])
            x = x.double()
            new = (len(x), x.sum(0), x.mT @ x)
            count, total, square = moments.get(index, (0, torch.zeros_like(new[1]), torch.zeros_like(new[2])))
            moments[index] = (count + new[0], total + new[1], square + new[2])

        return hook

    every, blocks = modules(method)
    handles = [every[block].register_forward_hook(accumulate(i)) for i, block in enumerate(blocks)]
    network = method.backbone.eval()
    with torch.no_grad():
        for batch in batches:
            mask = batch["inputs"].get("attention_mask")
            network(**batch["inputs"])
    for handle in handles:
        handle.remove()
    width = len(moments[0][1])
    return Profile(width=width, ranks=tuple(centred_rank(*moments[i]) for i in range(len(moments))))


def centred_rank(count: int, total: Tensor, square: Tensor) -> float:
    """Return the effective rank of centred rows, from their number, sum (D,) and Σ x·xᵀ (D, D)."""
    import torch

    from bench.spectra import effective_rank

    mean_row = total / count
    values = torch.linalg.eigvalsh(square / count - torch.outer(mean_row, mean_row)).clamp_min(0).sqrt()
    return float(effective_rank(values, singular_values=True))


def gaussian_rank(width: int) -> float:
    """Return the effective rank of features without structure."""
    import torch

    source = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS_PER_DIMENSION * width, width, dtype=torch.float64, generator=source)
    return centred_rank(len(rows), rows.sum(0), rows.mT @ rows)


def by_block(profiles: Sequence[Profile]) -> dict[float, list[float]]:
    """Return the ranks of several networks by block, counted from 1."""
    return {block: [*ranks] for block, ranks in enumerate(zip(*(p.ranks for p in profiles), strict=True), 1)}


def _figure(rows: Mapping[str, Sequence[Profile]], last: Mapping[float, Sequence[float]], width: int) -> Figure:
    depth = [
        mean_series(name, by_block(profiles), "dashed" if name == "untrained" else "line", whiskers=False)
        for name, profiles in rows.items()
    ]
    panels = [
        Panel(title="over depth", x="block", y="effective rank of features", content=depth),
        Panel(
            title="last block", x="mask rate", y="effective rank of features", content=[mean_series("last block", last)]
        ),
    ]
    caption = f"Centred token features of whole held-out examples; width {width}."
    return Figure(title="Masked pretraining and the rank of activations", panels=panels, caption=caption)
