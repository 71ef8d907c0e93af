"""Dropout training: everything trains under dropout, which penalises rank, with a linear probe that watches."""

from __future__ import annotations

from dataclasses import dataclass

from bench.config.options import option
from methods.full.config import FullConfig


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(FullConfig):
    """h ↦ b ⊙ h/θ in training, b_i ~ Bernoulli(θ), θ = 1 − rate, at every dropout of the network and before the head.

    For a product U·Vᵀ with dropout on the k numbers between its factors, the expected squared error is that of U·Vᵀ
    and λ·Σ‖u_i‖²‖v_i‖², λ = (1 − θ)/θ: at its least λ/k times the squared nuclear norm (Cavazza et al. 2018, arXiv
    1710.05092; Mianjy et al. 2018, arXiv 1806.09777). Masks are drawn for the batch as a device gets it: how it is cut
    over devices and micro batches changes them.
    A second head, the probe, learns from the features as evaluation sees them, and no gradient of it reaches the
    network; its scores on dev, `probe_…`, are taken during training too. It costs a second forward pass.
    Trains: everything, and the probe. Parameters: all of backbone and head, and another head.
    ΔW = W(t) − W(0) of every linear layer.

    Options: as BERT and ViT were trained.
    """

    rate: float = option(
        0.1,
        "Chance that a number is dropped, 1 − θ; it takes the place of backbone.dropout and head.dropout.",
        at_least=0,
        at_most=0.999,
    )
    probe: bool = option(True, "Train the linear probe beside the head.")
    evaluations: int = option(10, "How many times dev is evaluated on the way.", at_least=0)
