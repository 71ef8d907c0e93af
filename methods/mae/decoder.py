"""The light decoder of a masked autoencoder."""

from __future__ import annotations

import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class Decoder(nn.Module):
    """Encoded visible patches in, pixels of every patch out; it is thrown away after training.

    Matrices start as Xavier's, uniform, biases at 0 and the mask token from N(0, .02²), as in He et al. Positions are
    sines and cosines of row and column, fixed; tokens before the patches have none.

    Attributes:
        prefix: P, tokens before the patches.
        positions: (N, d).
    """

    positions: Tensor

    def __init__(
        self,
        *,
        inner: int,
        depth: int,
        heads: int,
        width: int,
        prefix: int,
        grid: tuple[int, int],
        numbers: int,
        seed: int,
    ) -> None:
        """Draw it from the seed alone.

        Args:
            inner: d, width of the decoder, a multiple of `heads` and of 4.
            depth: blocks.
            heads: attention heads.
            width: D, of the encoder's tokens.
            prefix: P, tokens before the patches.
            grid: rows and columns of patches.
            numbers: n, pixels of a patch times channels.
            seed: of its random start; torch's global generator goes on as before.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._build(inner, depth, heads, width, numbers)
        self.prefix = prefix
        self.register_buffer("positions", build_sincos2d_pos_embed(list(grid), inner), persistent=False)

    def _build(self, inner: int, depth: int, heads: int, width: int, numbers: int) -> None:
        self.embed = nn.Linear(width, inner)
        self.mask = nn.Parameter(torch.randn(1, 1, inner) * 0.02)
        self.blocks = nn.Sequential(*(Block(inner, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(inner)
        self.predict = nn.Linear(inner, numbers)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Predicted pixels of all patches (B, N, n), visible ones too.

        Args:
            tokens: (B, P + V, D) from the encoder.
            keep: (B, V) numbers of the visible patches.
        """
        hidden = self.embed(tokens)
        before, visible = hidden[:, : self.prefix], hidden[:, self.prefix :]
        everywhere = self.mask.to(hidden.dtype).expand(len(hidden), len(self.positions), -1)
        patches = everywhere.scatter(1, keep.unsqueeze(-1).expand_as(visible), visible) + self.positions
        out = self.blocks(torch.cat([before, patches], dim=1))
        return self.predict(self.norm(out[:, self.prefix :]))


__all__ = ["Decoder"]
