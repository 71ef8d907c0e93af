"""Small text encoders of transformers by their kind, with random weights, as the suite loads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

SIZES: dict[str, Any] = {
    **{"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **{"pad_token_id": 0, "max_position_embeddings": 40},
}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3}
BERTS = ("albert", "bert", "deberta", "deberta-v2", "electra", "esm", "mpnet", "roberta", "roformer", "squeezebert")
ENCODERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(BERTS, SIZES),
    "albert": {**SIZES, "embedding_size": 8},
    "bart": {
        **{"vocab_size": 60, "d_model": 16, "max_position_embeddings": 40, "pad_token_id": 0},
        **{"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24},
        **{"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24},
    },
    "distilbert": {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "pad_token_id": 0},
    "gpt2": {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, **SPECIAL},
    "modernbert": {**SIZES, **SPECIAL, "num_hidden_layers": 3, "cls_token_id": 2, "sep_token_id": 3},
    "squeezebert": {**SIZES, "embedding_size": 16},
}
"""Kind in transformers → options of its configuration."""


def encoder(kind: str, **options: Any) -> Any:
    """The network of one kind, the same at every call."""
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(kind, **(ENCODERS[kind] | options)))


def tokens() -> dict[str, Tensor]:
    """Ids and mask (2, 8)."""
    ids = torch.arange(16).view(2, 8) + 5
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
