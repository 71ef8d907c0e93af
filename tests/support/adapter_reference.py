"""What tests hold adapters against: a network of four blocks, its blocks run one after the other, other networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from bench.api.backbone import Backbone
from bench.backbones.text_encoders import from_folder

L, D = 4, 32


def deep_bert(tiny_bert: Path, folder: Path) -> Backbone:
    """A BERT of four blocks, with matrices large enough for features to depend on the text."""
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    sizes = {"hidden_size": D, "num_hidden_layers": L, "num_attention_heads": 2, "intermediate_size": 48}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return from_folder("deep-bert", folder)


@torch.no_grad()
def shake(method: nn.Module) -> None:
    """Move all that trains far from its start, so that a wrong sign or place shows."""
    generator = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def weights(state: dict[str, Tensor]) -> dict[int, list[Tensor]]:
    """Down, its bias, Up, its bias of every adapted block, by their names in a state or an export."""
    prefix, parts = "backbone.model.encoder.layer", ("down.weight", "down.bias", "up.weight", "up.bias")
    there = [i for i in range(L) if f"{prefix}.{i}.adapter.up.bias" in state]
    return {i: [state[f"{prefix}.{i}.adapter.{part}"].detach().clone() for part in parts] for i in there}


def plain(
    model: Any, inputs: dict[str, Tensor], adapters: dict[int, list[Tensor]], act: Callable[[Tensor], Tensor] = F.relu
) -> Tensor:
    """Pooled features of transformers' own blocks, one after the other, with these adapters in between."""
    hidden = model.embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
    closed = (1 - inputs["attention_mask"][:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
    for i, block in enumerate(model.encoder.layer):
        out = block(hidden, closed)
        hidden = out[0] if isinstance(out, tuple) else out
        if i in adapters:
            down, down_bias, up, up_bias = adapters[i]
            hidden = hidden + act(hidden @ down.T + down_bias) @ up.T + up_bias
    return model.pooler(hidden)


def dev_batch(data: Any) -> dict[str, Any]:
    tokens = data.evaluation["dev"]
    return data.collate(tokens, np.arange(len(tokens.labels)))


class Tuples(nn.Module):
    """Blocks that give a tuple, as those of older transformers do."""

    def __init__(self, blocks: int, kind: Callable[..., Any] = nn.ModuleList) -> None:
        super().__init__()
        self.width = D
        self.layers = kind([self.Block() for _ in range(blocks)])

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(D, 8), nn.Linear(8, D)

        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return torch.tanh(self.other(self.one(x))), "attention"

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x, word = layer(x)
            assert word in ("attention", None)
        return x


def vit() -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": D, "depth": 3, "num_heads": 2, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    model.width = D
    return model


SIZES = {"vocab_size": 20, "num_attention_heads": 2, "num_hidden_layers": 3}
NETWORKS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertModel(BertConfig(hidden_size=D, intermediate_size=40, **SIZES)),
    "roberta": lambda: RobertaModel(RobertaConfig(hidden_size=D, intermediate_size=40, **SIZES)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(vocab_size=20, dim=D, n_layers=3, n_heads=2, hidden_dim=40)),
    "vit": vit,
    "tuples": lambda: Tuples(3),
}
