"""Masked language modelling: pretrains a text encoder by recovering masked tokens, as BERT was trained."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch
from bench.api.network import TokenNetwork
from bench.core.errors import UsageError
from bench.core.random import uniform
from methods.common.pretraining import Pretraining
from methods.mlm.config import MLMConfig

DRAWS = 3
"""Random numbers per token: whether it is selected, what becomes of it, which token replaces it."""
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


class MLM(Pretraining):
    """Pretrains a text encoder on masked tokens (see `MLMConfig`)."""

    primary = ("mlm_loss",)
    higher_is_better = False
    Config = MLMConfig
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
        self.probing = self.config.probe and self.task.labelled
        self.head.requires_grad_(self.probing and self.head_config.trainable)
        super().adapt(batch)

    def expected_parameters(self) -> int | None:
        pooler = getattr(getattr(self.backbone, "model", None), "pooler", None)
        without = sum(p.numel() for p in pooler.parameters()) if isinstance(pooler, nn.Module) else 0
        words, size = cast(TokenNetwork, self.backbone).get_input_embeddings().weight.shape
        head = self.backbone.width * size + 3 * size + words
        return sum(p.numel() for p in self.backbone.parameters()) - without + head

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of each example's mean over its selected tokens, plus the probe's loss."""
        statistics, pooled = self._recover(batch, batch["step"])
        loss = (statistics[:, 0] / statistics[:, 1].clamp_min(1)).mean()
        if not self.probing:
            return loss
        scores = self.predict(F.dropout(pooled.detach(), self.head_config.dropout, self.training))
        return loss + self.criterion(scores, batch["labels"])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return (B, 3 + outputs of the probe): summed loss, selected, recovered tokens; the probe reads full text."""
        statistics, _ = self._recover(batch, -1)
        if not self.probing:
            return statistics
        scores = self(batch["inputs"]).to(statistics)
        return torch.cat([statistics, scores.view(len(scores), -1)], -1)

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Return `mlm_loss`, `perplexity` exp(loss) and `mlm_accuracy` over all selected tokens, and `probe_…`."""
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
        loss, right = F.cross_entropy(logits, wanted, reduction="none"), (logits.argmax(-1) == wanted).float()
        per_token = torch.stack([loss, torch.ones_like(loss), right], -1)
        padded = per_token.new_zeros(*ids.shape, STATISTICS)
        padded[selected] = per_token  # then summed along the text: index_add has no fixed order on a GPU
        return padded.sum(1), network.pool(hidden, mask)


def mask_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    draws: Tensor,
    *,
    special: Collection[int],
    mask_id: int,
    vocabulary: int,
    rate: float = 0.15,
    random_share: float = 0.1,
    keep_share: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Select tokens and replace them (Devlin et al. 2018, arXiv 1810.04805, section 3.1).

    Each ordinary token, neither special nor padding, is selected independently with probability `rate`. Of the selected
    `keep_share` stay as they are, `random_share` become an ordinary token drawn uniformly (perhaps the same), and the
    others the mask token. In an example where this selects none, the ordinary token with the smallest draw is
    selected, since the authors' code selects at least one; an example without ordinary tokens has none.

    Args:
        input_ids: (B, T).
        attention_mask: (B, T), 0 where there is padding.
        draws: uniform numbers in [0, 1), (B, T, 3) or flat (B, 3·T): token t of an example uses its numbers 3·t,
            3·t + 1 and 3·t + 2, so that wider padding changes no choice. In 64 bits, to resolve the vocabulary.
        special: ids that are never selected and never drawn.
        mask_id: id of the mask token.
        vocabulary: ordinary ids are 0, …, vocabulary − 1 without `special`.
        rate, random_share, keep_share: as above.

    Returns:
        Ids of the masked text (B, T), and the selected tokens, bool (B, T).
    """
    select, become, which = draws.reshape(*input_ids.shape, DRAWS).unbind(-1)
    ordinary = ordinary_ids(special, vocabulary).to(input_ids.device)
    eligible = attention_mask.bool() & ~torch.isin(input_ids, input_ids.new_tensor(sorted(special)))
    selected = eligible & (select < rate)
    least = select.masked_fill(~eligible, 2.0).argmin(-1, keepdim=True)
    without = ~selected.any(-1, keepdim=True)
    selected |= without & eligible & torch.zeros_like(eligible).scatter(-1, least, True)
    random_ids = ordinary[(which * len(ordinary)).long().clamp_max(len(ordinary) - 1)]
    masked = torch.full_like(input_ids, mask_id)
    masked = torch.where(become < random_share + keep_share, random_ids, masked)
    masked = torch.where(become < keep_share, input_ids, masked)
    return torch.where(selected, masked, input_ids), selected


def ordinary_ids(special: Collection[int], vocabulary: int) -> Tensor:
    """Return ids 0, …, vocabulary − 1 without the special ones, in order."""
    ids = torch.arange(vocabulary)
    return ids[~torch.isin(ids, ids.new_tensor(sorted(special)))]
