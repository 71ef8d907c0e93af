"""A vision transformer of timm that encodes some of its patches: those a masked autoencoder leaves visible."""

from __future__ import annotations

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.core.errors import UsageError


class Visible(nn.Module):
    """Lets the visible tokens through. It stands where timm drops patches at random: they know their positions by then,
    and every block is still to come. It holds no parameters, so the network's names stay what they were.

    Attributes:
        keep: (B, V) numbers of the visible patches; None lets all through.
    """

    def __init__(self, prefix: int) -> None:
        """Args: how many tokens before the patches (class, registers) always pass."""
        super().__init__()
        self.prefix = prefix
        self.keep: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, P + N, D) → (B, P + V, D)."""
        if self.keep is None:
            return tokens
        chosen = self.keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix :].gather(1, chosen)], dim=1)


class Encoder:
    """The transformer inside a backbone, run by timm's own code, so that what trains is the backbone itself.

    Attributes:
        network: the VisionTransformer.
        prefix: P, tokens before the patches.
        patch: (height, width) of one in pixels.
    """

    def __init__(self, backbone: nn.Module) -> None:
        """Find the transformer and take the place of its patch dropout.

        Raises:
            UsageError: there is none, or a patch of it sees other patches' pixels before the blocks.
        """
        self.network = _find(backbone)
        self.prefix: int = self.network.num_prefix_tokens
        self.patch: tuple[int, int] = self.network.patch_embed.patch_size
        self.visible = Visible(self.prefix)
        self.network.add_module("patch_drop", self.visible)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches in images (B, C, H, W)."""
        return images.shape[2] // self.patch[0], images.shape[3] // self.patch[1]

    def __call__(self, images: Tensor, keep: Tensor) -> Tensor:
        """Tokens after the last block and its norm, (B, P + V, D), as if only patches `keep` (B, V) existed."""
        self.visible.keep = keep
        try:
            return self.network.forward_features(images)
        finally:
            self.visible.keep = None

    def normed(self, tokens: Tensor) -> Tensor:
        """What a decoder reads: networks that norm pooled features only (`fc_norm`) would leave tokens unnormed."""
        return self.network.fc_norm(tokens)

    def pooled(self, tokens: Tensor) -> Tensor:
        """Features (B, D), as the backbone pools its tokens."""
        return self.network.forward_head(tokens, pre_logits=True)


def _find(backbone: nn.Module) -> VisionTransformer:
    found = [module for module in backbone.modules() if isinstance(module, VisionTransformer)]
    if len(found) != 1:
        kinds = sorted({type(module).__name__ for module in backbone.children()})
        raise UsageError(
            "mae needs a backbone that reads an image as patches",
            f"{type(backbone).__name__} holds {', '.join(kinds) or 'no modules'}: no vision transformer of timm",
            "Take --backbone vit, or one of timm's vit_… networks.",
        )
    embed = found[0].patch_embed
    conv = getattr(embed, "proj", None)
    if not isinstance(embed, PatchEmbed) or not isinstance(conv, nn.Conv2d) or not _disjoint(conv):
        raise UsageError(
            "mae needs patches that are embedded each by itself",
            f"this network's {type(embed).__name__} lets a patch see the pixels of others, masked ones too",
            "Take --backbone vit, or a vit_… network of timm without a convolutional stem.",
        )
    return found[0]


def _disjoint(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == conv.stride and set(conv.padding) == {0} and set(conv.dilation) == {1}


__all__ = ["Encoder"]
