"""What a masked autoencoder learns from: pixels of patches, and U-MAE's uniformity of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def patchify(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """(B, C, H, W) → (B, N, n): patches row by row, each with its n = C·h·w numbers in the order (C, h, w)."""
    return F.unfold(images, patch, stride=patch).transpose(1, 2)


def normalise(patches: Tensor) -> Tensor:
    """Every patch (…, n) by its own mean and variance: (x − x̄) / √(Σ(x − x̄)²/(n − 1) + 1e−6), as in He et al."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def uniformity(features: Tensor) -> Tensor:
    """Mean of (f_iᵀf_j)² over all pairs of rows (B, D), each over its length, those with themselves among them."""
    unit = F.normalize(features, dim=-1)
    return (unit @ unit.T).square().mean()


__all__ = ["normalise", "patchify", "uniformity"]
