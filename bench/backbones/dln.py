"""Deep linear network: a product of matrices, where theory says which singular values move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import Backbone, built
from bench.config.sections import BackboneConfig, in_range


class DLN:
    """f(x) = W_L·…·W_1·x without bias or nonlinearity; the last matrix is the head and comes with the network.

    Orthogonal start (arXiv 2306.01154, 2311.02960): W_l(0) = ε·(random orthogonal), ε·(semi-orthogonal) where W_l is
    not square, the last one its first K rows. Gaussian start: entries of W_l from N(0, ε²/fan_in). With whitened
    inputs, full-batch gradient descent and an orthogonal start, all but 2K singular values of every W_l, l < L, are
    ε·(1 − ηλ)^t after t steps, with learning rate η and weight decay λ. The record has the rank of the whole product.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BackboneConfig):
        """Size and start."""

        depth: int = 3
        """L, the number of matrices, the head's included; 1 is a linear model."""
        width: int | None = None
        """Rows of every matrix but the last; none takes the size of an input, which the theory is about."""
        init: Literal["orthogonal", "gaussian"] = "orthogonal"
        """Where the matrices start: orthogonal times ε, or independent entries N(0, ε²/fan_in)."""
        init_scale: float = 1.0
        """ε."""

        def __post_init__(self) -> None:
            """Check ranges."""
            BackboneConfig.__post_init__(self)
            in_range("backbone.depth", self.depth, 1)
            in_range("backbone.width", 1 if self.width is None else self.width, 1)
            in_range("backbone.init_scale", self.init_scale, 0)

    def open(self, name: str, config: Config) -> Backbone:
        """Built from its options and the run's seed."""
        return built(name, config, "bench.backbones.linear_net:load", "image", "vector")
