"""Largest rank of ΔW that the parametrisation of each of peft's tuners allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

ADAPTER = "default"
"""peft's name of the adapter that it trains."""


def _lokr(options: Any, layer: Any) -> int | None:
    """The rank of a Kronecker product is the product of its factors' ranks; a factor is whole, or of rank r."""
    factors = (layer.lokr_w1.get(ADAPTER), layer.lokr_w2.get(ADAPTER))
    return prod(options.r if w is None else min(len(w), w[0].numel()) for w in factors)


OF_RANK_R = ("deft", "delora", "hra", "peanut", "psoft", "pvera", "tinylora", "unilora", "vblora", "vera")
BOUNDS: Mapping[str, Callable[[Any, Any], int | None]] = {
    **dict.fromkeys(OF_RANK_R, lambda options, layer: options.r),
    "adamss": lambda options, layer: options.num_subspaces * options.subspace_rank,
    "beft": lambda options, layer: 0,  # it trains a bias
    "fourierft": lambda options, layer: 2 * options.n_frequency,  # the real part of a complex sum of outer products
    "gralora": lambda options, layer: options.gralora_k * options.r + options.hybrid_r,
    "loha": lambda options, layer: options.r**2,
    "lokr": _lokr,
    "lora": lambda options, layer: None if options.use_dora else options.r,
    "miss": lambda options, layer: None if options.init_weights == "bat" else options.r,
    "osf": lambda options, layer: 2 * len(layer.osf_svd_params[ADAPTER]["S_low"]),
    "supertuning": lambda options, layer: len(layer.supertuning_values[ADAPTER]) + (options.r or 0),
    "waveft": lambda options, layer: options.n_frequency,
}
"""Bound from a tuner's options and its layer, by tuner; None, and tuners not named here: only the shape bounds it."""


def nominal_rank(tuner: str, options: object, layer: object, most: int, *, moved: bool) -> int:
    """Return the rank that the tuner allows a ΔW.

    Args:
        options: the tuner's, by peft's names.
        layer: peft's.
        most: what the shape allows.
        moved: peft took the adapter's start out of W, as for PiSSA: ΔW = s·(B·A − B₀·A₀) has twice the rank.
    """
    bound = BOUNDS[tuner](options, layer) if tuner in BOUNDS else None
    return most if bound is None else min(most, bound * (1 + moved))
