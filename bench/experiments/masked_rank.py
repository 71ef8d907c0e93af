"""Rank of activations against the rate at which pretraining masks: what `mae-rank` and `mlm-rank` share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import deviation, listed, mean, words
from bench.records.record import DoneRecord

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api.method import Method
    from bench.figures import Figure

LOW = 0.5
"""Effective rank of low-rank features is at most this share of their width."""
LEAST_EXAMPLES = 8
"""Times the width: rows that a covariance needs before its rank says something of the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Effective rank of centred token features behind every block, on whole held-out examples.

    Attributes:
        width: D.
        ranks: by block, in order.
    """

    width: int
    ranks: tuple[float, ...]


class MaskedRank(Experiment):
    """Pretrains at several rates and looks at the features of unmasked held-out examples."""

    usual: ClassVar[float]
    """The rate that is in common use."""

    @property
    @abstractmethod
    def rates(self) -> Sequence[float]:
        """Rates, ascending."""

    @abstractmethod
    def pretrain(self, rate: float) -> Sequence[DoneRecord]:
        """Runs at a rate, one per seed, each of which keeps its network."""

    @abstractmethod
    def probe(self, backbone: str, seed: int) -> dict[str, Any]:
        """Words of `bench run` that put a linear layer on a backbone, to have it with its data."""

    @property
    @abstractmethod
    def untrained(self) -> str:
        """The backbone before pretraining."""

    def run(self) -> Outcome:
        """Pretrain, measure, and measure the network before it."""
        seeds = [int(text) for text in listed(self.config.seeds)]
        found: dict[float, list[Profile]] = {}
        for rate in self.rates:
            found[rate] = [self._profile(f"runs:{r.run_id}", r.spec.seed) for r in self.pretrain(rate)]
        before = [self._profile(self.untrained, seed) for seed in seeds]
        least, most = self.rates[0], self.rates[-1]
        usual = min(self.rates, key=lambda rate: abs(rate - self.usual))
        width = before[0].width
        last = {rate: [p.ranks[-1] for p in several] for rate, several in found.items()}
        checks = [
            Check.at_most(
                f"rate {usual:g}: effective rank of the last block's features, of {width}",
                LOW * width,
                mean(last[usual]),
            ),
            Check.at_most(
                f"rate {most:g} against {least:g}: ratio of ranks", 1.0, mean(last[most]) / mean(last[least])
            ),
        ]
        noise, start = _gaussian(width), mean([p.ranks[-1] for p in before])
        controls = [
            Control(
                name="Gaussian features", expected=f"above {LOW * width:g}", measured=noise, held=noise > LOW * width
            ),
            Control(
                name="untrained network",
                expected=f"above the {mean(last[usual]):.1f} after pretraining",
                measured=start,
                held=start > mean(last[usual]),
            ),
        ]
        rows = [(f"rate {rate:g}", *_columns(several)) for rate, several in found.items()]
        rows.append(("untrained", *_columns(before)))
        return Outcome(
            checks=checks,
            controls=controls,
            figure=self._figure(found, before),
            header=("", *(f"block {i + 1}" for i in range(len(before[0].ranks)))),
            rows=rows,
            says=f"Last block, width {width}: effective rank {start:.1f} untrained, "
            + ", ".join(f"{mean(values):.1f} at {rate:g}" for rate, values in last.items())
            + ".",
        )

    def _profile(self, backbone: str, seed: int) -> Profile:
        [(method, data)] = self.lab.build(**self.probe(backbone, seed))
        return profile(method, data.val_dataloader()[0])

    def _figure(self, found: Mapping[float, list[Profile]], before: list[Profile]) -> Figure:
        from bench.figures import Figure, Panel, Series

        blocks = [*range(1, len(before[0].ranks) + 1)]
        depth = [
            Series(name=f"rate {rate:g}", x=blocks, y=[mean([p.ranks[i - 1] for p in several]) for i in blocks])
            for rate, several in found.items()
        ]
        level = [mean([p.ranks[i - 1] for p in before]) for i in blocks]
        depth.append(Series(name="untrained", x=blocks, y=level, form="dashed"))
        rates = [*found]
        last = {rate: [p.ranks[-1] for p in several] for rate, several in found.items()}
        line = Series(
            name="last block", x=rates, y=[mean(last[r]) for r in rates], spread=[deviation(last[r]) for r in rates]
        )
        panels = [
            Panel(title="over depth", x="block", y="effective rank of features", content=depth),
            Panel(title="last block", x="mask rate", y="effective rank of features", content=[line]),
        ]
        caption = f"Centred token features of whole held-out examples; width {before[0].width}."
        return Figure(title="Masked pretraining and the rank of activations", panels=panels, caption=caption)


def profile(method: Method, batches: Any) -> Profile:
    """Ranks of a network's features, in evaluation mode."""
    import torch

    from bench.spectra.tracking.sources import modules

    sums: dict[int, list[Any]] = {}
    mask: Tensor | None = None

    def hook(index: int) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) else output
            x = first.detach()
            x = x[mask.bool()] if mask is not None and mask.shape == x.shape[:-1] else x.reshape(-1, x.shape[-1])
            x = x.double()
            old = sums.get(index, [0, 0.0, 0.0])
            sums[index] = [old[0] + len(x), old[1] + x.sum(0), old[2] + x.mT @ x]

        return keep

    every, blocks = modules(method)
    handles = [every[block].register_forward_hook(hook(i)) for i, block in enumerate(blocks)]
    network: Any = method.backbone.eval()
    with torch.no_grad():
        for batch in batches:
            mask = batch["inputs"].get("attention_mask")
            network(**batch["inputs"])
    for handle in handles:
        handle.remove()
    return Profile(width=len(sums[0][1]), ranks=tuple(_rank(*sums[i]) for i in range(len(sums))))


def _rank(count: int, total: Tensor, square: Tensor) -> float:
    """Effective rank of centred rows, from their number, sum (D,) and Σ x·xᵀ (D, D)."""
    import torch

    from bench.spectra import effective_rank

    mean_row = total / count
    values = torch.linalg.eigvalsh(square / count - torch.outer(mean_row, mean_row)).clamp_min(0).sqrt()
    return float(effective_rank(values, singular_values=True))


def _gaussian(width: int) -> float:
    """What features without structure have, from as many rows as make their covariance known."""
    import torch

    rows = torch.randn(LEAST_EXAMPLES * width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return _rank(len(rows), rows.sum(0), rows.mT @ rows)


def _columns(several: Sequence[Profile]) -> list[str]:
    return [words([p.ranks[i] for p in several], 1) for i in range(len(several[0].ranks))]
