"""MAE: masked autoencoder pretraining; an image is reconstructed from a quarter of its patches."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from methods.full.method import Full
from methods.mae import masks
from methods.mae.config import MAEConfig
from methods.mae.decoder import Decoder
from methods.mae.encoder import Encoder
from methods.mae.objective import normalise, patchify, uniformity


class MAE(Full):
    """Pretrains a vision transformer by reconstruction; equations are in `MAEConfig`."""

    saves_backbone: ClassVar[Literal["never", "asked", "always"]] = "always"

    Config: ClassVar[type[MethodConfig]] = MAEConfig

    config: MAEConfig

    def adapt(self, batch: Batch) -> None:
        """Find the transformer, build the decoder, from the seed alone, and keep W(0)."""
        images, config = batch["inputs"]["x"], self.config
        self.encoder = Encoder(self.backbone)
        grid = self.encoder.grid(images)
        self.patches = grid[0] * grid[1]
        self.masked = masks.count(config.mask_ratio, self.patches)
        numbers = images.shape[1] * self.encoder.patch[0] * self.encoder.patch[1]
        if config.norm_pixels and numbers < 2:
            raise UsageError(
                "patches of one number cannot be normalised",
                "method.norm_pixels divides by the standard deviation inside a patch",
                "Use larger patches, or --set method.norm_pixels=false.",
            )
        size = {"inner": config.decoder_width, "depth": config.decoder_depth, "heads": config.decoder_heads}
        self.decoder = Decoder(
            **size,
            width=int(self.backbone.width),  # type: ignore[arg-type]
            prefix=self.encoder.prefix,
            grid=grid,
            numbers=numbers,
            seed=self.seed,
        )
        if isinstance(pool := self.encoder.network.attn_pool, nn.Module):
            pool.requires_grad_(False)  # it reads tokens for the probe alone: no gradient would ever reach it
        self.evaluations = config.evaluations
        if not self.task.labelled:
            self.primary, self.higher_is_better = ("reconstruction",), False  # type: ignore[misc]
        super().adapt(batch)

    def visible(self, batch: Batch) -> Tensor:
        """Numbers of the visible patches (B, V), ascending."""
        index = batch["index"].cpu().numpy()
        keep = masks.visible(self.seed, batch["step"], index, patches=self.patches, masked=self.masked)
        return torch.from_numpy(keep).to(batch["index"].device)

    def errors(self, images: Tensor, tokens: Tensor, keep: Tensor) -> Tensor:
        """Mean squared error over the masked patches of each image, (B,).

        Args:
            images: (B, C, H, W).
            tokens: (B, P + V, D), encoded.
            keep: (B, V) numbers of the visible patches.
        """
        target = patchify(images, self.encoder.patch)
        target = normalise(target) if self.config.norm_pixels else target
        error = (self.decoder(self.encoder.normed(tokens), keep) - target).square().mean(-1)
        return error.scatter(1, keep, 0).sum(-1) / self.masked

    def loss(self, batch: Batch) -> Tensor:
        """L, λ times the uniformity term, and the probe's own loss."""
        images, keep = batch["inputs"]["x"], self.visible(batch)
        tokens = self.encoder(images, keep)
        loss = self.errors(images, tokens, keep).mean()
        if self.config.uniformity:
            loss = loss + self.config.uniformity * uniformity(self.encoder.pooled(tokens))
        if not any(p.requires_grad for p in self.head.parameters()):
            return loss
        with torch.no_grad():  # and not first, or autocast would keep weights that were cast without a gradient
            features = F.dropout(self.backbone(**batch["inputs"]), self.head_config.dropout, self.training)
        return loss + self.criterion(self.predict(features), batch["labels"])

    def param_groups(self) -> list[dict[str, Any]]:
        """The probe by itself, at its own rate."""
        head = [p for p in self.head.parameters() if p.requires_grad]
        groups = [{"params": self._learned()}]
        return [*groups, {"params": head, "lr_scale": self.config.probe_lr_ratio}] if head else groups

    def _learned(self) -> list[nn.Parameter]:
        return [p for part in (self.backbone, self.decoder) for p in part.parameters() if p.requires_grad]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the probe by itself: a common norm would let labels scale the transformer's steps."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self._learned(), gradient_clip_val)
            nn.utils.clip_grad_norm_(self.head.parameters(), gradient_clip_val)

    def on_fit_start(self) -> None:
        """Refuse what would make the result depend on how a batch is cut.

        Raises:
            UsageError: `uniformity` with micro batches or several devices.
        """
        parts, world = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if self.config.uniformity and parts * world > 1:
            raise UsageError(
                f"method.uniformity={self.config.uniformity:g} needs every batch in one piece",
                f"it compares all images of a batch, which is cut into {parts} micro batches on {world} devices",
                "Leave runtime.micro_batch and --devices out, or method.uniformity.",
            )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """(B, 1 + outputs): the masked patches' error, and what the probe says where there are labels."""
        images, keep = batch["inputs"]["x"], self.visible(batch)
        errors = self.errors(images, self.encoder(images, keep), keep).unsqueeze(1)
        if not self.task.labelled:
            return errors
        return torch.cat([errors, self(batch["inputs"]).reshape(len(errors), -1)], dim=1)

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """`reconstruction`, L over the split, and the task's metrics of the probe."""
        found = {"reconstruction": float(outputs[:, 0].double().mean())}
        if not self.task.labelled:
            return found
        probe = outputs[:, 1:] if self.task.num_classes or self.task.targets > 1 else outputs[:, 1]
        return {**super().evaluate(probe, labels), **found}

    def report(self) -> dict[str, Any]:
        """What was masked, and how large the decoder is."""
        patches = {"all": self.patches, "masked": self.masked, "visible": self.patches - self.masked}
        return {"patches": patches, "decoder_parameters": sum(p.numel() for p in self.decoder.parameters())}
