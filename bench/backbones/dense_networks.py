"""Networks of dense layers: the multilayer perceptron, and the deep linear network with the rank of its map."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.api.backbone import Backbone
from bench.api.network import Network
from bench.api.task import TaskSpec
from bench.backbones.dln import DLNConfig
from bench.backbones.mlp import MLPConfig
from bench.backbones.seeding import generator
from bench.config.sections import HeadConfig
from bench.spectra import singular_values
from bench.spectra.ranks import summary

Init = Literal["orthogonal", "gaussian"]
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
            weight = torch.randn(m, n, generator=source) * math.sqrt(2 / n)
            parts = OrderedDict[str, nn.Module](linear=_linear(weight, bias=True))
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


class DeepLinearNet(Network):
    """Flattened input (B, n) → W_{L−1}·…·W_1·x (B, D); W_L is the head. No bias, no nonlinearity anywhere.

    Attributes:
        width: D, the width of every layer, and n where there is no layer (depth 1).
        layers: L − 1 linear layers: W_1 (D, n), then (D, D).
        blocks: none, since there is no residual stream.
    """

    def __init__(self, inputs: int, config: DLNConfig, *, seed: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.inputs, self.options, self.dtype = inputs, config, dtype
        self.blocks: list[nn.Module] = []
        sizes = [inputs, *[config.width or inputs] * (config.depth - 1)]
        self.width = sizes[-1]
        source = generator(seed, "deep linear network")
        self.layers = nn.ModuleList(self._layer(rows, columns, source) for columns, rows in pairwise(sizes))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, D); dropout acts after every layer, so between each two of W_1 … W_L."""
        x = x.flatten(1)
        for layer in self.layers:
            x = self.drop(layer(x))
        return x

    def make_head(self, outputs: int, source: torch.Generator) -> nn.Linear:
        """Make W_L (K, D), initialised as the other layers are; no bias."""
        return self._layer(outputs, self.width, source)

    def _layer(self, rows: int, columns: int, source: torch.Generator) -> nn.Linear:
        weight = initial_weight(rows, columns, self.options.init, self.options.init_scale, source)
        return _linear(weight.to(self.dtype), bias=False)

    def report(self, head: nn.Module) -> dict[str, object]:
        """Return the rank of the whole map x ↦ W_L·…·W_1·x (K, n), as JSON values under `end_to_end`.

        By a float64 SVD of the product, which comes from the network itself: modules that a method put in the place of
        a layer count. `numerical` is #{σ > σ₁·max(K, n)·eps} with the eps of the precision of training.
        """
        product = self.product(head)
        sigma = singular_values(product)
        floor = float(sigma.max()) * max(product.shape) * torch.finfo(next(head.parameters()).dtype).eps
        numerical = int((sigma > floor).sum())
        return {"end_to_end": {"shape": list(product.shape), "numerical": numerical, **summary(sigma)}}

    def product(self, head: nn.Module) -> Tensor:
        """Compute W_L·…·W_1 (K, n) in float64, without dropout and bias: the Jacobian of the outputs by the input."""
        whole = nn.Sequential(self, head)
        tensors = [*whole.named_parameters(), *whole.named_buffers()]
        double = {name: t.detach().double() if t.is_floating_point() else t for name, t in tensors}
        modes = {module: module.training for module in whole.modules()}

        def outputs(x: Tensor) -> Tensor:
            return functional_call(whole, double, (x[None],))[0]

        try:
            whole.eval()
            zero = torch.zeros(self.inputs, dtype=torch.float64, device=next(head.parameters()).device)
            with torch.enable_grad():
                # row by row: n² numbers for each of K rows; the outputs for n unit vectors would cost n³
                return cast(Tensor, torch.autograd.functional.jacobian(outputs, zero))
        finally:
            for module, mode in modes.items():
                module.training = mode


def initial_weight(rows: int, columns: int, init: Init, scale: float, source: torch.Generator) -> Tensor:
    """Draw the initial weight (rows, columns) of a layer, float64.

    orthogonal: ε·Q with QᵀQ = I or, where there are fewer rows than columns, QQᵀ = I: uniform among these, hence
    distributed as the first rows (columns) of a random orthogonal matrix. gaussian: entries N(0, ε²/columns), which
    at ε = 1 keeps the length of a vector on average.
    """
    if init == "gaussian":
        entries = torch.randn(rows, columns, dtype=torch.float64, generator=source)
        return entries * (scale / math.sqrt(columns))
    tall = torch.empty(max(rows, columns), min(rows, columns), dtype=torch.float64)
    nn.init.orthogonal_(tall, generator=source)
    return scale * (tall if rows >= columns else tall.mT).contiguous()


def _linear(weight: Tensor, *, bias: bool) -> nn.Linear:
    """Make a layer that holds `weight`, and zeros as its bias; draws no random numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias:
        layer.bias = nn.Parameter(torch.zeros(weight.shape[0]))
    return layer


def load_mlp(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> MultilayerPerceptron:
    return MultilayerPerceptron(math.prod(task.shape), backbone.config_as(MLPConfig), seed=seed)


def load_dln(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> DeepLinearNet:
    return DeepLinearNet(math.prod(task.shape), backbone.config_as(DLNConfig), seed=seed)
