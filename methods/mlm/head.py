"""BERT's head for masked language modelling: a dense layer, then the word embeddings themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLMHead(nn.Module):
    """Logits W·LayerNorm(GELU(A·h + a)) + b, transformers' BertLMPredictionHead; W are the word embeddings themselves.

    W belongs to the backbone, which learns it from both ends; A, a, the LayerNorm and b are the head's.
    """

    def __init__(self, width: int, embedding: nn.Embedding, seed: int) -> None:
        """N(0, .02²) weights as BERT's, from a generator of its own."""
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
