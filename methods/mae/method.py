"""MAE: pretrains a vision transformer by reconstructing images from a quarter of their patches."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch
from bench.core.errors import UsageError
from bench.core.random import uniform
from methods.common.pretraining import Pretraining
from methods.mae.config import MAEConfig
from methods.mae.network import Decoder, PatchEncoder


class MAE(Pretraining):
    """Pretrains a vision transformer by reconstruction; see `MAEConfig`."""

    Config = MAEConfig
    config: MAEConfig

    def adapt(self, batch: Batch) -> None:
        """Find the transformer, build the decoder from the seed alone, and keep W(0)."""
        images, config = batch["inputs"]["x"], self.config
        self.encoder = PatchEncoder(self.backbone)
        (channels, height, width), patch = images.shape[1:], self.encoder.patch
        grid = height // patch[0], width // patch[1]
        self.patches = grid[0] * grid[1]
        self.masked = count_masked(config.mask_ratio, self.patches)
        numbers = channels * patch[0] * patch[1]
        if config.norm_pixels and numbers < 2:
            raise UsageError(
                "patches of one number cannot be normalised",
                "method.norm_pixels divides by the standard deviation inside a patch",
                "Use larger patches, or --set method.norm_pixels=false.",
            )
        sizes = {"width": self.backbone.width, "prefix": self.encoder.prefix, "numbers": numbers}
        self.decoder = Decoder(config, grid=grid, seed=self.seed, **sizes)
        if isinstance(pool := self.encoder.network.attn_pool, nn.Module):
            pool.requires_grad_(False)  # only the probe uses it, so no gradient reaches it
        if not self.task.labelled:
            self.primary, self.higher_is_better = ("reconstruction",), False
        super().adapt(batch)

    def expected_parameters(self) -> int | None:
        d, layers, width = self.config.decoder_width, self.config.decoder_depth, self.backbone.width
        numbers = self.decoder.predict.out_features
        decoder = d * (width + 2) + layers * (12 * d**2 + 13 * d) + 2 * d + numbers * (d + 1)
        pool = self.encoder.network.attn_pool
        unused = sum(p.numel() for p in pool.parameters()) if isinstance(pool, nn.Module) else 0
        return sum(p.numel() for p in self.backbone.parameters()) - unused + decoder

    def visible(self, batch: Batch) -> Tensor:
        """Return the numbers of the visible patches (B, V), ascending."""
        index = batch["index"].cpu().numpy()
        keep = visible_patches(self.seed, batch["step"], index, patches=self.patches, masked=self.masked)
        return torch.from_numpy(keep).to(batch["index"].device)

    def errors(self, images: Tensor, tokens: Tensor, keep: Tensor) -> Tensor:
        """Return the mean squared error over the masked patches of each image, (B,).

        From images (B, C, H, W), encoded tokens (B, P + V, D) and numbers of the visible patches (B, V).
        """
        patch = self.encoder.patch
        target = F.unfold(images, patch, stride=patch).transpose(1, 2)  # (B, N, n), row by row, n ordered (C, h, w)
        if self.config.norm_pixels:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()  # as He et al., with Σ(x − x̄)²/(n − 1)
        tokens = self.encoder.network.fc_norm(tokens)  # of networks that norm pooled features only
        error = (self.decoder(tokens, keep) - target).square().mean(-1)
        return error.scatter(1, keep, 0).sum(-1) / self.masked

    def loss(self, batch: Batch) -> Tensor:
        """Return L, plus λ times the uniformity term and the loss of the probe."""
        images, keep = batch["inputs"]["x"], self.visible(batch)
        tokens = self.encoder(images, keep)
        loss = self.errors(images, tokens, keep).mean()
        if self.config.uniformity:
            loss = loss + self.config.uniformity * uniformity_penalty(self.encoder.pooled(tokens))
        if not any(p.requires_grad for p in self.head.parameters()):
            return loss
        # after the encoder: autocast caches weights as they are first cast, here without gradient
        with torch.no_grad():
            features = F.dropout(self.backbone(**batch["inputs"]), self.head_config.dropout, self.training)
        return loss + self.criterion(self.predict(features), batch["labels"])

    def on_fit_start(self) -> None:
        """Refuse `uniformity` with micro batches or several devices (UsageError): it depends on the batch's split."""
        parts, world = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if self.config.uniformity and parts * world > 1:
            raise UsageError(
                f"method.uniformity={self.config.uniformity:g} needs every batch in one piece",
                f"it compares all images of a batch, which is split into {parts} micro batches on {world} devices",
                "Leave runtime.micro_batch and --devices out, or method.uniformity.",
            )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return (B, 1 + outputs): the error of the masked patches, and outputs of the probe where there are labels."""
        images, keep = batch["inputs"]["x"], self.visible(batch)
        errors = self.errors(images, self.encoder(images, keep), keep).unsqueeze(1)
        if not self.task.labelled:
            return errors
        return torch.cat([errors, self(batch["inputs"]).reshape(len(errors), -1)], dim=1)

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Return `reconstruction`, L over the split, and the task's metrics of the probe."""
        values = {"reconstruction": float(outputs[:, 0].double().mean())}
        if not self.task.labelled:
            return values
        probe = outputs[:, 1:] if self.task.num_classes or self.task.targets > 1 else outputs[:, 1]
        return {**super().evaluate(probe, labels), **values}

    def report(self) -> dict[str, object]:
        patches = {"all": self.patches, "masked": self.masked, "visible": self.patches - self.masked}
        decoder = sum(p.numel() for p in self.decoder.parameters())
        return {"patches": patches, "decoder_parameters": decoder, **super().report()}


def count_masked(ratio: float, patches: int) -> int:
    """Return how many of `patches` are masked: `ratio` of them, rounded.

    Raises:
        UsageError: none would be masked, or all.
    """
    masked = round(ratio * patches)
    if not 0 < masked < patches:
        raise UsageError(
            f"method.mask_ratio={ratio:g} masks {masked} of {patches} patches",
            "at least one must be masked, and one visible",
            "Change it, or use smaller patches: --set backbone.patch=N.",
        )
    return masked


def visible_patches(seed: int, step: int, index: np.ndarray, *, patches: int, masked: int) -> np.ndarray:
    """Draw the numbers of the visible patches, (B, patches − masked) int64, ascending; every subset is equally likely.

    From seed, optimiser step, −1 in evaluation, and numbers of the examples (B,).
    """
    drawn = uniform(seed, "mae masks", step, index, patches)
    return np.sort(drawn.argsort(axis=1, kind="stable")[:, masked:], axis=1)


def uniformity_penalty(features: Tensor) -> Tensor:
    """Return the mean of (f_iᵀf_j)² over all pairs of normalised rows (B, D), pairs of a row with itself included."""
    unit = F.normalize(features, dim=-1)
    return (unit @ unit.T).square().mean()
