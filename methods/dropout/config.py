"""Dropout training: trains everything under dropout, which penalises rank, beside a linear probe."""

from __future__ import annotations

from dataclasses import dataclass

from bench.config.options import option
from methods.full.config import FullConfig


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(FullConfig):
    """Trains everything with h ↦ b ⊙ h/θ, b_i ~ Bernoulli(θ), θ = 1 − rate, at every dropout and before the head.

    For a product U·Vᵀ with dropout on the k numbers between its factors, the expected squared error is that of U·Vᵀ
    plus λ·Σ‖u_i‖²‖v_i‖², λ = (1 − θ)/θ. The least value of this sum is λ/k times the squared nuclear norm of U·Vᵀ.
    Masks are drawn for the batch of each device: how a batch is split over devices and micro batches changes them.
    A second head, the probe, learns from the features without dropout, as evaluation sees them. None of its gradient
    reaches the network; dev is scored with it during training too, as `probe_…`. It costs a second forward pass.
    ΔW = W(t) − W(0) of every linear layer.
    Trains: everything, and the probe.
    Parameters: all of backbone and head, and another head.
    Source: Cavazza et al. 2018, arXiv 1710.05092; Mianjy et al. 2018, arXiv 1806.09777. Defaults: the rate with which
    BERT and ViT were trained.
    """

    rate: float = option(
        0.1,
        "Probability 1 − θ of dropping a number; replaces backbone.dropout and head.dropout.",
        at_least=0,
        at_most=0.999,
    )
    probe: bool = option(True, "Train the linear probe beside the head.")
    evaluations: int = option(10, "How many times dev is evaluated during training.", at_least=0)
