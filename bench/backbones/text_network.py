"""Text encoders as networks: token features of a transformers model, pooled into one vector per example."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, BertModel
from transformers.utils import logging

from bench.api.backbone import Backbone, load_tokenizer
from bench.api.dropout import CONFIG_RATES
from bench.api.network import Network, TokenIds
from bench.api.task import TaskSpec
from bench.backbones.seeding import seeded
from bench.backbones.text_encoders import POSITIONS, BERTConfig
from bench.config.sections import HeadConfig
from bench.core.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logging.set_verbosity_error()
logging.disable_progress_bar()

Pooling = Literal["mean", "cls", "pooler"]


class TextEncoder(Network):
    """Tokens (B, T) → pooled features (B, D).

    Attributes:
        model: of transformers.
        width: D.
        pooling: `mean` over the tokens that are not padding, `cls` the first token, `pooler` the model's own.
        tokenizer: its folder.
    """

    def __init__(self, model: Any, pooling: Pooling, tokenizer: Path) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.model, self.pooling, self.width = model, pooling, int(model.config.hidden_size)
        if pooling != "pooler" and hasattr(model, "pooler"):
            model.pooler = None  # not used, so neither counted nor trained

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Ids and mask (B, T) → (B, D)."""
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        # the model has already run its own pooler, whose output equals that of `pool` to the bit
        return out.pooler_output if self.pooling == "pooler" else self.pool(out.last_hidden_state, attention_mask)

    def hidden(self, **inputs: Tensor) -> Tensor:
        """Ids and mask (B, T) → a feature of every token (B, T, D)."""
        return self.model(**inputs).last_hidden_state

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Token features (B, T, D) → (B, D): `forward` is `pool` of `hidden`."""
        if self.pooling == "pooler":
            return self.model.pooler(hidden)
        if self.pooling == "cls":
            return hidden[:, 0]
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp_min(torch.finfo(hidden.dtype).tiny)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings (vocabulary, E)."""
        return self.model.get_input_embeddings()

    @cached_property
    def tokens(self) -> TokenIds:
        """Mask, special ids and size of the tokenizer's vocabulary."""
        tokenizer = load_tokenizer(str(self.tokenizer))
        return TokenIds(
            mask=cast("int | None", tokenizer.mask_token_id),
            special=tuple(sorted(tokenizer.all_special_ids)),
            # embeddings may be padded to a round number; a tokenizer may have tokens without an embedding
            vocabulary=min(len(tokenizer), self.get_input_embeddings().num_embeddings),
        )

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write model, tokenizer and pooling as transformers and sentence-transformers do."""
        self.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if self.pooling != "pooler":
            (folder / "1_Pooling").mkdir(exist_ok=True)
            modes = {f"pooling_mode_{mode}": mode.startswith(self.pooling) for mode in ("cls_token", "mean_tokens")}
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


class BuiltBert(TextEncoder):
    """A BERT that names its blocks."""

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer layers in order."""
        return [*self.model.encoder.layer]


def load_pretrained(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TextEncoder:
    """Load the network of a folder that `save_pretrained` wrote."""
    assert backbone.path is not None
    config = AutoConfig.from_pretrained(backbone.path)
    for name in CONFIG_RATES:
        if hasattr(config, name):
            setattr(config, name, backbone.config.dropout)
    model = AutoModel.from_pretrained(backbone.path, config=config, use_safetensors=True).float()
    return TextEncoder(model, _pooling(backbone, head), backbone.path)


def load_bert(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> BuiltBert:
    """Build a `BERT` for the vocabulary of its tokenizer; matrices start from N(0, .02²) (arXiv 1810.04805).

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
    assert backbone.path is not None
    tokenizer = load_tokenizer(str(backbone.path))
    settings = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate or 4 * config.hidden,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        pad_token_id=cast("int", tokenizer.pad_token_id or 0),
    )
    with seeded(seed, "bert"):
        model = BertModel(settings)
    return BuiltBert(model, _pooling(backbone, head), backbone.path)


def _pooling(backbone: Backbone, head: HeadConfig) -> Pooling:
    return backbone.pooling if head.pooling == "auto" else head.pooling
