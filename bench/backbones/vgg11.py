"""VGG11: eight 3×3 convolutions and one linear layer, for images of 8×8 or more; random at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import Backbone, built
from bench.config.options import option
from bench.config.sections import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class VGG11Config(BackboneConfig):
    """Size and normalisation."""

    width: int = option(
        64,
        "Channels of the first convolution; the others have 2, 4, 4, 8, 8, 8 and 8 times as many.",
        at_least=1,
    )
    norm: Literal["batch", "none"] = option(
        "batch",
        "Batch norm after every convolution, or VGG11 as published, which takes a lower learning rate.",
    )


class VGG11:
    """timm's VGG11 (configuration A of arXiv 1409.1556) up to its last pooling, then the mean over the map.

    The three dense layers, 120 of VGG11's 133 million parameters and made for 224×224, are one, the head.
    """

    Config = VGG11Config

    def open(self, name: str, config: VGG11Config) -> Backbone:
        """Built from its options and the run's seed."""
        return built(name, config, "bench.backbones.timm_net:load_vgg11", "image")
