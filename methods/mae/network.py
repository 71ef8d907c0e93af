"""The networks of a masked autoencoder: timm's vision transformer on visible patches, and a light decoder."""

from __future__ import annotations

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from bench.core.errors import UsageError
from methods.mae.config import MAEConfig


class PatchEncoder:
    """The transformer inside a backbone, on some of the patches; timm's own code runs it.

    Attributes:
        network: the VisionTransformer.
        prefix: P, tokens before the patches (class, registers).
        patch: (height, width) of one in pixels.
    """

    def __init__(self, backbone: nn.Module) -> None:
        """Find the transformer and replace its patch dropout, which acts between positions and blocks.

        Raises:
            UsageError: there is none, or a patch of it sees other patches' pixels before the blocks.
        """
        self.network = _find_transformer(backbone)
        self.prefix: int = self.network.num_prefix_tokens
        self.patch: tuple[int, int] = self.network.patch_embed.patch_size
        self._keep: Tensor | None = None
        self.network.patch_drop = nn.Identity()
        self.network.patch_drop.register_forward_hook(self._filter)

    def _filter(self, module: nn.Module, args: object, tokens: Tensor) -> Tensor:
        """Pass the tokens before the patches and those of visible patches: (B, P + N, D) → (B, P + V, D)."""
        if self._keep is None:
            return tokens
        chosen = self._keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix :].gather(1, chosen)], dim=1)

    def __call__(self, images: Tensor, keep: Tensor) -> Tensor:
        """Return tokens after the last block and its norm, (B, P + V, D), as if only patches `keep` (B, V) existed."""
        self._keep = keep
        try:
            return self.network.forward_features(images)
        finally:
            self._keep = None

    def pooled(self, tokens: Tensor) -> Tensor:
        """Return features (B, D), pooled as the backbone pools its tokens."""
        return self.network.forward_head(tokens, pre_logits=True)


def _find_transformer(backbone: nn.Module) -> VisionTransformer:
    transformers = [module for module in backbone.modules() if isinstance(module, VisionTransformer)]
    if len(transformers) != 1:
        kinds = sorted({type(module).__name__ for module in backbone.children()})
        raise UsageError(
            "mae needs a backbone that splits an image into patches",
            f"{type(backbone).__name__} holds {', '.join(kinds) or 'no modules'}: no vision transformer of timm",
            "Use --backbone vit, or one of timm's vit_… networks.",
        )
    embed = transformers[0].patch_embed
    if not isinstance(embed, PatchEmbed) or not _is_disjoint(embed.proj):
        raise UsageError(
            "mae needs patches that are embedded separately",
            f"this network's {type(embed).__name__} mixes the pixels of patches, masked ones included",
            "Use --backbone vit, or a vit_… network of timm without a convolutional stem.",
        )
    return transformers[0]


def _is_disjoint(layer: nn.Module) -> bool:
    """Tell whether a layer is a convolution of patches that do not overlap."""
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.kernel_size == layer.stride and set(layer.padding) == {0} and set(layer.dilation) == {1}


class Decoder(nn.Module):
    """Encoded visible patches → pixels of every patch; not kept after training.

    Matrices start as Xavier's, uniform, biases at 0 and the mask token from N(0, .02²), as in He et al. Positions are
    fixed sines and cosines of row and column; tokens before the patches have none.
    """

    positions: Tensor

    def __init__(
        self, config: MAEConfig, *, width: int, prefix: int, grid: tuple[int, int], numbers: int, seed: int
    ) -> None:
        """Build the decoder from the seed alone; torch's global generator is left as it was.

        Args:
            config: width d, depth and heads.
            width: D, of the encoder's tokens.
            prefix: P, tokens before the patches.
            grid: rows and columns of patches.
            numbers: n, pixels of a patch times channels.
            seed: of its random start.
        """
        super().__init__()
        inner = config.decoder_width
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.embed = nn.Linear(width, inner)
            self.mask = nn.Parameter(torch.randn(1, 1, inner) * 0.02)
            blocks = [Block(inner, config.decoder_heads, qkv_bias=True) for _ in range(config.decoder_depth)]
            self.blocks = nn.Sequential(*blocks)
            self.norm = nn.LayerNorm(inner)
            self.predict = nn.Linear(inner, numbers)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
        self.prefix = prefix
        self.register_buffer("positions", build_sincos2d_pos_embed(list(grid), inner), persistent=False)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Return pixels of all patches (B, N, n), from encoded tokens (B, P + V, D) and visible numbers (B, V)."""
        hidden = self.embed(tokens)
        before, visible = hidden[:, : self.prefix], hidden[:, self.prefix :]
        everywhere = self.mask.to(hidden.dtype).expand(len(hidden), len(self.positions), -1)
        patches = everywhere.scatter(1, keep.unsqueeze(-1).expand_as(visible), visible) + self.positions
        out = self.blocks(torch.cat([before, patches], dim=1))
        return self.predict(self.norm(out[:, self.prefix :]))
