"""A transformers encoder whose token features are pooled into one vector per example."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from bench.backbones import Backbone
from bench.backbones.dropout import CONFIG_RATES
from bench.config import HeadConfig
from bench.task import TaskSpec

logging.set_verbosity_error()
logging.disable_progress_bar()


class Pooled(nn.Module):
    """Tokens (B, T) → pooled features (B, D).

    Attributes:
        model: of transformers.
        width: D.
        pooling: `mean` over the tokens that are not padding, `cls` the first token, `pooler` the model's own.
    """

    def __init__(self, model: Any, pooling: Literal["mean", "cls", "pooler"]) -> None:
        super().__init__()
        self.model, self.pooling, self.width = model, pooling, int(model.config.hidden_size)
        if pooling != "pooler" and hasattr(model, "pooler"):
            model.pooler = None  # not used, so neither counted nor trained

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Ids and mask (B, T) → (B, D)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self.pooling == "pooler":
            return out.pooler_output
        tokens = out.last_hidden_state
        if self.pooling == "cls":
            return tokens[:, 0]
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * mask).sum(1) / mask.sum(1).clamp_min(torch.finfo(tokens.dtype).tiny)

    def save(self, folder: Path, tokenizer: Any) -> None:
        """Write model, tokenizer and pooling as transformers and sentence-transformers do."""
        self.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if self.pooling != "pooler":
            (folder / "1_Pooling").mkdir(exist_ok=True)
            modes = {f"pooling_mode_{mode}": mode.startswith(self.pooling) for mode in ("cls_token", "mean_tokens")}
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


class TextEncoder(Pooled):
    """What lies in a folder that `save_pretrained` wrote."""

    def __init__(self, path: Path, *, pooling: Literal["mean", "cls", "pooler"], dropout: float) -> None:
        config = AutoConfig.from_pretrained(path)
        for name in CONFIG_RATES:
            if hasattr(config, name):
                setattr(config, name, dropout)
        model = AutoModel.from_pretrained(path, config=config, use_safetensors=True).float()
        super().__init__(model, pooling)


def load(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TextEncoder:
    """The network of a folder that `save_pretrained` wrote."""
    assert backbone.path is not None
    pooling = backbone.pooling if head.pooling == "auto" else head.pooling
    return TextEncoder(backbone.path, pooling=pooling, dropout=backbone.options["dropout"])


@cache
def load_tokenizer(path: str) -> Any:
    """The tokenizer of a folder; loaded once per process."""
    return AutoTokenizer.from_pretrained(path, use_fast=True)
