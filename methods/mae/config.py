"""MAE: masked autoencoder pretraining; an image is reconstructed from a quarter of its patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.core.errors import UsageError
from methods.full.config import FullConfig


@dataclass(frozen=True, kw_only=True)
class MAEConfig(FullConfig):
    """L = mean over masked patches i of ‖p̂_i − p_i‖² / n, p_i the n normalised pixels (He et al., arXiv 2111.06377).

    The transformer encodes the visible patches alone, with its class and register tokens; a light decoder gets what it
    made of them, a learned token for every masked patch, and positions of its own. Which patches are masked follows
    from seed, step and example; evaluation masks the same ones every time. With `uniformity` λ > 0, U-MAE's term
    λ · mean over pairs (x, x') of the batch, x = x' among them, of (f(x)ᵀf(x'))² is added (Zhang et al., arXiv
    2210.08344), f(x) the pooled features of the visible patches over their length: it counters features that collapse
    into few dimensions.

    Where the task has labels, the head learns at the same time from the features of whole images, and no gradient of it
    reaches the transformer: an online linear probe, whose score is the primary one. `reconstruction` is L on dev.
    Trains: backbone, decoder, and the head by itself. Parameters: those of backbone and head, and of a decoder of width
    d and depth l between D and n: d·(D + 2) + l·(12·d² + 13·d) + 2·d + n·(d + 1).

    Options: masks of He et al., and a decoder for small images.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)
    scratch_learning_rate: ClassVar[float] = 1e-3
    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    supervised: ClassVar[bool] = False

    mask_ratio: float = option(
        0.75,
        "Share of patches that are masked, rounded to whole ones.",
        at_least=0,
        at_most=1,
    )
    decoder_width: int = option(64, "Width of the decoder, a multiple of 4 and of its heads.", at_least=4)
    decoder_depth: int = option(1, "Blocks of the decoder.", at_least=1)
    decoder_heads: int = option(4, "Attention heads of the decoder.", at_least=1)
    norm_pixels: bool = option(
        True,
        "Predict pixels less their patch's mean, over its deviation; false, better for 2×2 patches: as they are.",
    )
    uniformity: float = option(
        0.0,
        "λ of U-MAE's term, 1e-2 in its paper. It compares all images of a batch, which then cannot be cut.",
        at_least=0,
    )
    probe_lr_ratio: float = option(10.0, "Learning rate of the probe over that of the rest.", at_least=0)
    evaluations: int = option(4, "How many times dev is evaluated on the way.", at_least=0)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise UsageError(
                f"method.decoder_width={self.decoder_width} with method.decoder_heads={self.decoder_heads}",
                "the width must be a multiple of 4, for its positions, and of the heads",
                "Change one of them.",
            )
