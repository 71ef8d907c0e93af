"""Masked language modelling: the network recovers words that were hidden from it, as BERT was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.core.errors import UsageError
from methods.full.config import FullConfig


@dataclass(frozen=True, kw_only=True)
class MLMConfig(FullConfig):
    """Recover the 15 % of tokens that were selected (BERT, Devlin et al. 2018, arXiv 1810.04805).

    loss = mean over examples of the mean over the example's selected tokens of −log p(token | the masked text), with
    p = softmax(W·LayerNorm(GELU(A·h + a)) + b) where W (V, E) are the word embeddings themselves. BERT takes the mean
    over all tokens of a batch at once; a mean of means is the same for every device and micro batch without asking the
    others for their counts. Selection is a function of seed, step and example; held-out masks never change.
    A linear probe on the detached pooled features learns the task's labels beside it, where it has some: from masked
    text, but it is scored on whole text. Nothing flows back from it.
    Trains: everything but a pooler, which hidden words say nothing of. Parameters: those of the backbone, D·E + 3·E + V
    for A, a, LayerNorm and b, and the probe's.

    Options: BERT's choices.
    """

    learning_rate: ClassVar[float] = 1e-4
    learning_rates: ClassVar[tuple[float, ...]] = (3e-5, 1e-4, 3e-4)
    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    supervised: ClassVar[bool] = False

    rate: float = option(0.15, "Share of the tokens that are selected.", at_least=0.001, at_most=0.999)
    random_share: float = option(0.1, "Share of the selected that become a random token.", at_least=0, at_most=1)
    keep_share: float = option(
        0.1,
        "Share of the selected that stay as they are; the others are masked.",
        at_least=0,
        at_most=1,
    )
    probe: bool = option(True, "Train a linear probe beside it where the task has labels.")
    probe_lr_ratio: float = option(
        100.0,
        "Learning rate of the probe relative to the network's.",
        at_least=1e-06,
    )
    evaluations: int = option(4, "Evaluations on held-out text during training, evenly spaced.", at_least=1)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.random_share + self.keep_share > 1:
            raise UsageError(
                f"method.random_share={self.random_share:g} and method.keep_share={self.keep_share:g}",
                "together they must be at most 1",
                "Lower one of them.",
            )
