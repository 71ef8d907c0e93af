"""Masked language modelling: the network recovers words that were hidden from it, as BERT was trained."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.core.random import uniform
from methods.full.method import Full
from methods.mlm.config import MLMConfig
from methods.mlm.head import MLMHead
from methods.mlm.masking import DRAWS, mask_tokens

STATISTICS = 3
"""Columns of an evaluation output before the probe's: summed loss, selected tokens, those recovered."""


class MLM(Full):
    """Pretrains a text encoder on masked tokens; equations are in `MLMConfig`."""

    saves_backbone: ClassVar[Literal["never", "asked", "always"]] = "always"
    primary: ClassVar[tuple[str, ...]] = ("mlm_loss",)
    higher_is_better: ClassVar[bool] = False

    Config: ClassVar[type[MethodConfig]] = MLMConfig

    config: MLMConfig
    backbone: Any

    def adapt(self, batch: Batch) -> None:
        """Put BERT's head on the token features, and keep W(0).

        Raises:
            UsageError: the backbone gives no token features, or its tokenizer has no mask token.
        """
        tokens = getattr(self.backbone, "tokens", None)
        if tokens is None or not hasattr(self.backbone, "hidden"):
            raise UsageError("mlm needs features of tokens", "this backbone gives none", "Choose a text encoder.")
        if tokens.mask is None:
            raise UsageError("mlm needs a mask token", "the tokenizer has none", "Choose one such as BERT's.")
        embedding: nn.Embedding = self.backbone.get_input_embeddings()
        self.mlm_head = MLMHead(int(self.backbone.width), embedding, self.seed)
        pooler: nn.Module | None = getattr(getattr(self.backbone, "model", None), "pooler", None)
        if pooler is not None:
            pooler.requires_grad_(False)  # only the probe sees what it gives
        self.evaluations = self.config.evaluations
        self.probing = self.config.probe and self.task.labelled
        self.head.requires_grad_(self.probing and self.head_config.trainable)
        super().adapt(batch)

    def param_groups(self) -> list[dict[str, Any]]:
        """The probe at `probe_lr_ratio` times the learning rate, the rest at the learning rate."""
        probe, rest = self._trained()
        groups: list[dict[str, Any]] = [{"params": rest}]
        return [*groups, {"params": probe, "lr_scale": self.config.probe_lr_ratio}] if probe else groups

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip probe and network apart: one norm over both would let the labels scale the network's steps."""
        for group in self._trained():
            if gradient_clip_val and group:
                nn.utils.clip_grad_norm_(group, gradient_clip_val)

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the batch of each example's mean over its selected tokens, and the probe's loss."""
        statistics, pooled = self._recover(batch, int(batch["step"]))
        loss = (statistics[:, 0] / statistics[:, 1].clamp_min(1)).mean()
        return loss + self.criterion(self._probe(pooled.detach()), batch["labels"]) if self.probing else loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """(B, 3 + outputs of the probe): summed loss, selected tokens, those recovered; the probe's on whole text."""
        statistics, _ = self._recover(batch, -1)
        if not self.probing:
            return statistics
        scores = self._probe(self.backbone(**batch["inputs"])).to(statistics)
        return torch.cat([statistics, scores.view(len(scores), -1)], -1)

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Over all selected tokens: `mlm_loss`, `perplexity` exp(loss), `mlm_accuracy`; the probe's as `probe_…`.

        Args:
            outputs: (N, 3 + outputs), rows of `validation_step`.
            labels: (N,).
        """
        total, count, right = outputs[:, :STATISTICS].double().sum(0).tolist()
        loss = total / max(count, 1.0)
        found = {
            "mlm_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),  # beyond, a float ends
            "mlm_accuracy": right / max(count, 1.0),
        }
        if not self.probing:
            return found
        scores = outputs[:, STATISTICS:]
        scores = scores if self.task.num_classes else scores.view_as(labels)
        return {**found, **{f"probe_{name}": value for name, value in super().evaluate(scores, labels).items()}}

    def _trained(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters that train: the probe's, and all others."""
        probe = [p for p in self.head.parameters() if p.requires_grad]
        own = {id(p) for p in probe}
        return probe, [p for p in self.parameters() if p.requires_grad and id(p) not in own]

    def _probe(self, pooled: Tensor) -> Tensor:
        """The probe's outputs for features (B, D), as the task's labels are shaped."""
        return self.predict(F.dropout(pooled, self.head_config.dropout, self.training))

    def _recover(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Summed loss, selected and recovered tokens per example (B, 3), and pooled features of the masked text."""
        inputs, tokens, config = batch["inputs"], self.backbone.tokens, self.config
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        drawn = uniform(self.seed, "mask", step, batch["index"].cpu().numpy(), DRAWS * ids.shape[1])
        masked, selected = mask_tokens(
            ids.cpu(),
            mask.cpu(),
            torch.from_numpy(drawn),  # chosen on the CPU: the same in 64 bits for every device
            special=tokens.special,
            mask_id=tokens.mask,
            vocabulary=tokens.vocabulary,
            rate=config.rate,
            random_share=config.random_share,
            keep_share=config.keep_share,
        )
        masked, selected = masked.to(ids.device), selected.to(ids.device)
        hidden = self.backbone.hidden(**{**inputs, "input_ids": masked})
        logits = self.mlm_head(hidden[selected], self.backbone.get_input_embeddings().weight)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # 16 bits are too few for sums
        wanted = ids[selected]
        found = torch.stack(
            [
                F.cross_entropy(logits, wanted, reduction="none"),
                torch.ones_like(logits[:, 0]),
                (logits.argmax(-1) == wanted).float(),
            ],
            -1,
        )
        every = found.new_zeros(*ids.shape, STATISTICS)
        every[selected] = found  # summed along the text: adding up by index has no fixed order on a GPU
        return every.sum(1), self.backbone.pool(hidden, mask)
