"""Multilayer perceptron: linear layers with ReLU or GELU between them, for images and vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import Backbone, built
from bench.config.sections import BackboneConfig, in_range


class MLP:
    """x ↦ φ(W·x + b), `depth` − 1 times, then the head. W(0) from N(0, 2/fan_in) (He et al. 2015), b(0) = 0.

    Images are flattened.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BackboneConfig):
        """Size and kind of the layers."""

        depth: int = 4
        """Number of weight matrices, the head's included; 1 is a linear model."""
        width: int = 512
        """Neurons of every hidden layer."""
        activation: Literal["relu", "gelu"] = "relu"
        """φ."""
        norm: Literal["none", "layer"] = "none"
        """Whether a layer norm stands before every φ."""

        def __post_init__(self) -> None:
            """Check ranges."""
            BackboneConfig.__post_init__(self)
            in_range("backbone.depth", self.depth, 1)
            in_range("backbone.width", self.width, 1)

    def open(self, name: str, config: Config) -> Backbone:
        """Built from its options and the run's seed."""
        return built(name, config, "bench.backbones.mlp_net:load", "image", "vector")
