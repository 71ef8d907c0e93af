"""The multilayer perceptron as a network: linear layers with ReLU or GELU between them."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.api.network import Network
from bench.backbones.mlp import MLPConfig
from bench.backbones.seeding import generator

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.api.task import TaskSpec
    from bench.config.sections import HeadConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class MultilayerPerceptron(Network):
    """Flattened input (B, n) → (B, D) through `depth` − 1 layers x ↦ drop(φ(norm(W·x + b))); the last is the head.

    W ~ N(0, 2/fan_in) (He et al. 2015, arXiv 1502.01852, Eq. 10), also where φ is GELU; b = 0.

    Attributes:
        width: D, the width of every layer, and n where there is no layer (depth 1).
        layers: `layers.i.linear` are their matrices.
        blocks: none, since there is no residual stream.
    """

    def __init__(self, inputs: int, config: MLPConfig, *, seed: int) -> None:
        super().__init__()
        self.blocks: list[nn.Module] = []
        source = generator(seed, "multilayer perceptron")
        sizes = [inputs, *[config.width] * (config.depth - 1)]
        self.width = sizes[-1]
        self.layers = nn.ModuleList()
        for n, m in pairwise(sizes):
            parts = OrderedDict[str, nn.Module](linear=_linear(n, m, source))
            if config.norm == "layer":
                parts["norm"] = nn.LayerNorm(m)
            parts |= {"act": ACTIVATIONS[config.activation](), "drop": nn.Dropout(config.dropout)}
            self.layers.append(nn.Sequential(parts))

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, D)."""
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x)
        return x


def _linear(n: int, m: int, source: torch.Generator) -> nn.Linear:
    layer = nn.Linear(n, m, device="meta")
    layer.weight = nn.Parameter(torch.randn(m, n, generator=source) * math.sqrt(2 / n))
    layer.bias = nn.Parameter(torch.zeros(m))
    return layer


def load(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> MultilayerPerceptron:
    """Build an `MLP` for the inputs of `task`."""
    return MultilayerPerceptron(math.prod(task.shape), backbone.config_as(MLPConfig), seed=seed)
