"""MAE: pretrains a vision transformer by reconstructing images from a quarter of their patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.core.errors import UsageError
from methods.full.config import FullConfig


@dataclass(frozen=True, kw_only=True)
class MAEConfig(FullConfig):
    """Minimises L = mean over masked patches i of ‖p̂_i − p_i‖² / n, where p_i are the n normalised pixels of patch i.

    The transformer encodes the visible patches alone, with its class and register tokens. A light decoder reads the
    encoded patches, a learned token for every masked patch, and positions of its own. Seed, step and example determine
    which patches are masked; evaluation always masks the same ones. `uniformity` λ > 0 adds U-MAE's term against
    features that collapse into few dimensions: λ · mean over pairs (x, x') of the batch, x = x' included, of
    (f(x)ᵀf(x'))², where f(x) are the pooled features of the visible patches divided by their norm.
    Where the task has labels, the head learns at the same time from the features of whole images: an online linear
    probe, whose score is the primary one. None of its gradient reaches the transformer. `reconstruction` is L on dev.
    Trains: backbone, decoder, and the head by itself.
    Parameters: those of backbone and head, and of a decoder of width d and depth l between D and n: d·(D + 2) +
    l·(12·d² + 13·d) + 2·d + n·(d + 1).
    Source: He et al. 2021, arXiv 2111.06377; U-MAE: Zhang et al. 2022, arXiv 2210.08344. Defaults: the masks of He et
    al., and a decoder for small images.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)
    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    supervised: ClassVar[bool] = False

    mask_ratio: float = option(0.75, "Share of patches that are masked, rounded to whole ones.", at_least=0, at_most=1)
    decoder_width: int = option(64, "Width of the decoder, a multiple of 4 and of its heads.", at_least=4)
    decoder_depth: int = option(1, "Blocks of the decoder.", at_least=1)
    decoder_heads: int = option(4, "Attention heads of the decoder.", at_least=1)
    norm_pixels: bool = option(
        True,
        "Predict pixels standardised within their patch; false, better for 2×2 patches, predicts them as they are.",
    )
    uniformity: float = option(
        0.0,
        "λ of U-MAE's term, 1e-2 in its paper. It compares all images of a batch, which then cannot be split.",
        at_least=0,
    )
    probe_lr_ratio: float = option(10.0, "Learning rate of the probe relative to that of everything else.", at_least=0)
    evaluations: int = option(4, "How many times dev is evaluated during training.", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise UsageError(
                f"method.decoder_width={self.decoder_width} with method.decoder_heads={self.decoder_heads}",
                "the width must be a multiple of 4, for its positions, and of the heads",
                "Change one of them.",
            )
