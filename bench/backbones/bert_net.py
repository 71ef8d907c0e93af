"""A BERT of any size, built and not pretrained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import nn
from transformers import BertConfig, BertModel

from bench.api.backbone import load_tokenizer
from bench.backbones.bert import BERTConfig
from bench.backbones.encoder import Pooled
from bench.backbones.seeding import seeded
from bench.core.errors import UsageError

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.api.task import TaskSpec
    from bench.config.sections import HeadConfig


class RandomBert(Pooled):
    """Tokens (B, T) → pooled features (B, D); matrices from N(0, .02²) as BERT's (arXiv 1810.04805)."""

    def __init__(
        self, config: BertConfig, *, pooling: Literal["mean", "cls", "pooler"], seed: int, tokenizer: Path | None = None
    ) -> None:
        with seeded(seed, "bert"):
            model = BertModel(config)
        super().__init__(model, pooling, tokenizer)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer layers in order."""
        return [*self.model.encoder.layer]


def load(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> RandomBert:
    """The network that `bench.backbones.bert` describes, for the vocabulary of its tokenizer.

    Raises:
        UsageError: the heads do not divide the width.
    """
    config = backbone.config_as(BERTConfig)
    if config.hidden % config.heads:
        raise UsageError(
            f"backbone.heads={config.heads} does not divide backbone.hidden={config.hidden}",
            "every head gets hidden / heads numbers of a token",
            "Change one of them.",
        )
    tokenizer = load_tokenizer(str(backbone.path))
    settings = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate or 4 * config.hidden,
        max_position_embeddings=512,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        pad_token_id=tokenizer.pad_token_id or 0,
    )
    pooling = backbone.pooling if head.pooling == "auto" else head.pooling
    return RandomBert(settings, pooling=pooling, seed=seed, tokenizer=backbone.path)
