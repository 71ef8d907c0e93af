"""Deep linear network: a product of matrices, for which theory says which singular values move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import BuiltNetwork
from bench.config.options import option
from bench.config.sections import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class DLNConfig(BackboneConfig):
    depth: int = option(3, "L, the number of matrices, the head's included; 1 is a linear model.", at_least=1)
    width: int | None = option(
        None, "Rows of every matrix but the last; none takes the size of an input, as the theory assumes.", at_least=1
    )
    init: Literal["orthogonal", "gaussian"] = option(
        "orthogonal", "Initial matrices: orthogonal times ε, or independent entries N(0, ε²/fan_in)."
    )
    init_scale: float = option(1.0, "ε.", at_least=0)


class DLN(BuiltNetwork):
    """f(x) = W_L·…·W_1·x without bias or nonlinearity; the last matrix is the head and comes with the network.

    Orthogonal start (arXiv 2306.01154, 2311.02960): W_l(0) = ε·(random orthogonal), ε·(semi-orthogonal) where W_l is
    not square, the last one its first K rows. Gaussian start: entries of W_l from N(0, ε²/fan_in). With whitened
    inputs, full-batch gradient descent and an orthogonal start, all but 2K singular values of every W_l, l < L, are
    ε·(1 − ηλ)^t after t steps, with learning rate η and weight decay λ. The record has the rank of the whole product.
    """

    Config = DLNConfig
    loader = "bench.backbones.dense_networks:load_dln"
    modalities = ("image", "vector")
