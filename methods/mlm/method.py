"""Masked language modelling: pretrains a text encoder by recovering masked tokens, as BERT was trained."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch
from bench.api.network import TokenNetwork
from bench.api.optimizers import ParamGroup
from bench.config.sections import MethodConfig
from bench.core.errors import UsageError
from bench.core.random import uniform
from methods.full.method import Full
from methods.mlm.config import MLMConfig
from methods.mlm.masking import DRAWS, mask_tokens

STATISTICS = 3
"""Columns of an evaluation output before those of the probe: summed loss, selected tokens, recovered tokens."""


class MLMHead(nn.Module):
    """Logits W·LayerNorm(GELU(A·h + a)) + b, as transformers' BertLMPredictionHead; W are the word embeddings.

    W belongs to the backbone, which trains it as input and output embedding; A, a, LayerNorm and b are the head's.
    """

    def __init__(self, width: int, embedding: nn.Embedding, seed: int) -> None:
        """Draw N(0, .02²) weights, as BERT's, from the seed."""
        super().__init__()
        size = embedding.embedding_dim
        self.dense = nn.Linear(width, size)
        self.norm = nn.LayerNorm(size, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        with torch.no_grad():
            self.dense.weight.copy_(torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) * 0.02)
            self.dense.bias.zero_()

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Features (S, D) and word embeddings (V, E) → logits (S, V)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embeddings, self.bias)


class MLM(Full):
    """Pretrains a text encoder on masked tokens (see `MLMConfig`)."""

    saves_backbone: ClassVar[Literal["never", "asked", "always"]] = "always"
    primary: tuple[str, ...] = ("mlm_loss",)
    higher_is_better: bool = False

    Config: ClassVar[type[MethodConfig]] = MLMConfig

    config: MLMConfig

    def adapt(self, batch: Batch) -> None:
        """Put BERT's head on the token features, and keep W(0).

        Raises:
            UsageError: the backbone gives no token features, or its tokenizer has no mask token.
        """
        network = self.backbone
        if not isinstance(network, TokenNetwork) or network.tokens is None:
            raise UsageError("mlm needs features of tokens", "this backbone gives none", "Use a text encoder.")
        if network.tokens.mask is None:
            raise UsageError("mlm needs a mask token", "the tokenizer has none", "Use a backbone such as BERT.")
        self.tokens, self.mask_id = network.tokens, network.tokens.mask
        self.mlm_head = MLMHead(self.backbone.width, network.get_input_embeddings(), self.seed)
        pooler: nn.Module | None = getattr(getattr(self.backbone, "model", None), "pooler", None)
        if pooler is not None:
            pooler.requires_grad_(False)  # only the probe uses its output
        self.evaluations = self.config.evaluations
        self.probing = self.config.probe and self.task.labelled
        self.head.requires_grad_(self.probing and self.head_config.trainable)
        super().adapt(batch)

    def param_groups(self) -> list[ParamGroup]:
        probe, rest = self._trained()
        groups: list[ParamGroup] = [{"params": rest}]
        return [*groups, {"params": probe, "lr_scale": self.config.probe_lr_ratio}] if probe else groups

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the probe separately: with a common norm the labels would scale the network's steps."""
        for group in self._trained():
            if gradient_clip_val and group:
                nn.utils.clip_grad_norm_(group, gradient_clip_val)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of each example's mean over its selected tokens, plus the probe's loss."""
        statistics, pooled = self._recover(batch, batch["step"])
        loss = (statistics[:, 0] / statistics[:, 1].clamp_min(1)).mean()
        return loss + self.criterion(self._probe(pooled.detach()), batch["labels"]) if self.probing else loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return (B, 3 + outputs of the probe): summed loss, selected, recovered tokens; the probe reads full text."""
        statistics, _ = self._recover(batch, -1)
        if not self.probing:
            return statistics
        scores = self._probe(self.backbone(**batch["inputs"])).to(statistics)
        return torch.cat([statistics, scores.view(len(scores), -1)], -1)

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """`mlm_loss`, `perplexity` exp(loss), `mlm_accuracy` over all selected tokens; the probe's as `probe_…`."""
        total, count, correct = outputs[:, :STATISTICS].double().sum(0).tolist()
        loss = total / max(count, 1.0)
        values = {
            "mlm_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),  # a larger one overflows
            "mlm_accuracy": correct / max(count, 1.0),
        }
        if not self.probing:
            return values
        scores = outputs[:, STATISTICS:]
        scores = scores if self.task.num_classes else scores.view_as(labels)
        return {**values, **{f"probe_{name}": value for name, value in super().evaluate(scores, labels).items()}}

    def _trained(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trained parameters: those of the probe, and all others."""
        probe = [p for p in self.head.parameters() if p.requires_grad]
        in_probe = {id(p) for p in probe}
        return probe, [p for p in self.parameters() if p.requires_grad and id(p) not in in_probe]

    def _probe(self, pooled: Tensor) -> Tensor:
        """Return the outputs of the probe for features (B, D), in the shape of the labels."""
        return self.predict(F.dropout(pooled, self.head_config.dropout, self.training))

    def _recover(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Return summed loss, selected and recovered tokens per example (B, 3); pooled features of the masked text."""
        network = cast(TokenNetwork, self.backbone)  # checked by `adapt`
        inputs, config = batch["inputs"], self.config
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        drawn = uniform(self.seed, "mask", step, batch["index"].cpu().numpy(), DRAWS * ids.shape[1])
        masked, selected = mask_tokens(
            ids.cpu(),
            mask.cpu(),
            torch.from_numpy(drawn),  # on the CPU in 64 bits, so that every device selects the same
            special=self.tokens.special,
            mask_id=self.mask_id,
            vocabulary=self.tokens.vocabulary,
            rate=config.rate,
            random_share=config.random_share,
            keep_share=config.keep_share,
        )
        masked, selected = masked.to(ids.device), selected.to(ids.device)
        hidden = network.hidden(**{**inputs, "input_ids": masked})
        logits = self.mlm_head(hidden[selected], network.get_input_embeddings().weight)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # 16 bits are too few for sums
        wanted = ids[selected]
        per_token = torch.stack(
            [
                F.cross_entropy(logits, wanted, reduction="none"),
                torch.ones_like(logits[:, 0]),
                (logits.argmax(-1) == wanted).float(),
            ],
            -1,
        )
        padded = per_token.new_zeros(*ids.shape, STATISTICS)
        padded[selected] = per_token  # then summed along the text: index_add has no fixed order on a GPU
        return padded.sum(1), network.pool(hidden, mask)
