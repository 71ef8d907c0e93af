"""Attention whose query, key and value are one linear layer, taken apart so that each can have a ΔW of its own."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

FUSED = re.compile(r"\bW?qkv$")
"""What timm and ModernBERT call a layer (3d, n) whose rows are query, key and value, in this order."""


class SplitLinear(nn.Module):
    """The layers `query`, `key` and `value` (d, n) in place of one (3d, n): the same function of the same weights."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        width, bias = fused.out_features // 3, dict(fused.named_parameters()).get("bias")
        for i, part in enumerate(("query", "key", "value")):
            layer = nn.Linear(fused.in_features, width, bias=bias is not None, device="meta")
            rows = slice(i * width, (i + 1) * width)
            layer.weight = nn.Parameter(fused.weight.detach()[rows].clone())
            if bias is not None:
                layer.bias = nn.Parameter(bias.detach()[rows].clone())
            self.add_module(part, layer)

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, 3d)."""
        return torch.cat([layer(x) for layer in self.children()], dim=-1)


def split(backbone: nn.Module) -> None:
    """Take every fused projection of the backbone apart."""
    for name, module in [*backbone.named_modules()]:
        if isinstance(module, nn.Linear) and FUSED.search(name) and module.out_features % 3 == 0:
            parent, _, leaf = name.rpartition(".")
            setattr(backbone.get_submodule(parent), leaf, SplitLinear(module))
