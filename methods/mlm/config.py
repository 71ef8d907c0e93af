"""Masked language modelling: pretrains a text encoder by recovering masked tokens, as BERT was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.core.errors import UsageError
from methods.full.config import FullConfig


@dataclass(frozen=True, kw_only=True)
class MLMConfig(FullConfig):
    """Minimises −log p(token | masked text) over the 15 % of tokens that are selected.

    p = softmax(W·LayerNorm(GELU(A·h + a)) + b), where W (V, E) are the word embeddings themselves. The loss is the mean
    over examples of the mean over the example's selected tokens. BERT takes the mean over all tokens of a batch at
    once; a mean of means is the same for every split over devices and micro batches, without exchanging counts.
    Selection is a function of seed, step and example; held-out masks never change.
    Where the task has labels, a linear probe learns them from the detached pooled features: from masked text, but it is
    scored on whole text. None of its gradient reaches the network.
    Trains: everything but a pooler, which masked tokens do not involve.
    Parameters: those of the backbone, D·E + 3·E + V for A, a, LayerNorm and b, and the probe's.
    Source: BERT, Devlin et al. 2018, arXiv 1810.04805. Defaults: BERT's.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    supervised: ClassVar[bool] = False

    rate: float = option(0.15, "Share of the tokens that are selected.", at_least=0.001, at_most=0.999)
    random_share: float = option(0.1, "Share of the selected tokens that become a random token.", at_least=0, at_most=1)
    keep_share: float = option(
        0.1, "Share of the selected tokens that stay as they are; the others are masked.", at_least=0, at_most=1
    )
    probe: bool = option(True, "Train a linear probe where the task has labels.")
    probe_lr_ratio: float = option(100.0, "Learning rate of the probe relative to the network's.", at_least=1e-06)
    evaluations: int = option(4, "Evaluations on held-out text during training, evenly spaced.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_share + self.keep_share > 1:
            raise UsageError(
                f"method.random_share={self.random_share:g} and method.keep_share={self.keep_share:g}",
                "together they must be at most 1",
                "Lower one of them.",
            )
