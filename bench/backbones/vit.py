"""Vision transformer of any size, with patches that fit the images; random at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.api.backbone import Backbone, built
from bench.config.sections import BackboneConfig, in_range


class ViT:
    """timm's VisionTransformer (arXiv 2010.11929): pre-norm blocks, an MLP four times as wide, learned positions."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BackboneConfig):
        """Size and pooling."""

        patch: int = 0
        """Side of a patch in pixels, which must divide height and width; 0 takes the largest up to 16 that leaves 4×4
        patches: 2 for 8×8, 7 for 28×28, 8 for 32×32, 16 for 224×224."""
        width: int = 192
        """Numbers per token."""
        depth: int = 6
        """Number of blocks."""
        heads: int = 3
        """Attention heads; they must divide the width."""
        pool: Literal["token", "mean"] = "token"
        """Features: the class token, normed, or the mean over all patches, normed; there is no class token then."""

        def __post_init__(self) -> None:
            """Check ranges."""
            BackboneConfig.__post_init__(self)
            in_range("backbone.patch", self.patch, 0)
            in_range("backbone.width", self.width, 1)
            in_range("backbone.depth", self.depth, 1)
            in_range("backbone.heads", self.heads, 1)

    def open(self, name: str, config: Config) -> Backbone:
        """Built from its options and the run's seed."""
        return built(name, config, "bench.backbones.timm_net:load_vit", "image")
