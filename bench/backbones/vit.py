"""Vision transformer of any size, with patches that fit the images; random at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import Backbone, built
from bench.config.options import option
from bench.config.sections import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BackboneConfig):
    """Size and pooling."""

    patch: int = option(
        0,
        "Side of a patch in pixels, which must divide height and width; 0 takes the largest up to 16 that "
        "leaves 4×4 patches: 2 for 8×8, 7 for 28×28, 8 for 32×32, 16 for 224×224.",
        at_least=0,
    )
    width: int = option(192, "Numbers per token.", at_least=1)
    depth: int = option(6, "Number of blocks.", at_least=1)
    heads: int = option(3, "Attention heads; they must divide the width.", at_least=1)
    pool: Literal["token", "mean"] = option(
        "token",
        "Features: the class token, normed, or the mean over all patches, normed; there is no class token then.",
    )


class ViT:
    """timm's VisionTransformer (arXiv 2010.11929): pre-norm blocks, an MLP four times as wide, learned positions."""

    Config = ViTConfig

    def open(self, name: str, config: ViTConfig) -> Backbone:
        """Built from its options and the run's seed."""
        return built(name, config, "bench.backbones.timm_net:load_vit", "image")
