"""Multilayer perceptron: linear layers with ReLU or GELU between them, for images and vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import BuiltNetwork
from bench.config.options import option
from bench.config.sections import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class MLPConfig(BackboneConfig):
    depth: int = option(4, "Number of weight matrices, the head's included; 1 is a linear model.", at_least=1)
    width: int = option(512, "Neurons of every hidden layer.", at_least=1)
    activation: Literal["relu", "gelu"] = option("relu", "φ.")
    norm: Literal["none", "layer"] = option("none", "Whether a layer norm comes before every φ.")


class MLP(BuiltNetwork):
    """x ↦ φ(W·x + b), `depth` − 1 times, then the head. W(0) from N(0, 2/fan_in) (He et al. 2015), b(0) = 0.

    Images are flattened.
    """

    Config = MLPConfig
    loader = "bench.backbones.dense_networks:load_mlp"
    modalities = ("image", "vector")
