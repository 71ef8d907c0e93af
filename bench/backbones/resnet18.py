"""ResNet18: eight residual blocks, for images of 8×8 or more; random at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import Backbone, built
from bench.config.options import option
from bench.config.sections import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class ResNet18Config(BackboneConfig):
    """The first layer."""

    stem: Literal["small", "cifar", "imagenet"] = option(
        "small",
        "small: 3×3 convolution of stride 2. cifar: 3×3 of stride 1. imagenet: 7×7 of stride 2, then a max "
        "pool of stride 2, as published for 224×224.",
    )


class ResNet18:
    """timm's ResNet18 (arXiv 1512.03385), width 64 to 512, with a stem for small images.

    The stem decides the cost, since every stage works on what it leaves of the image. On 32×32 `imagenet` leaves 1×1
    to the last stage and `small` 2×2; `cifar`, the usual one for such images, leaves 4×4 and costs four times as much
    as `small`.
    """

    Config = ResNet18Config

    def open(self, name: str, config: ResNet18Config) -> Backbone:
        """Built from its options and the run's seed."""
        return built(name, config, "bench.backbones.timm_net:load_resnet18", "image")
