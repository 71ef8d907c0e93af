"""Fused projections of query, key and value: which of their rows are which, and a layer for each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from bench.api.lowrank.targets import FUSED, replace_layer
from bench.api.running_statistics import freeze_statistics

IN_THIRDS = {
    "timm.layers.attention.AttentionRope",
    "timm.models.beit.Attention",
    "timm.models.eva.EvaAttention",
    "timm.models.swin_transformer_v2.WindowAttention",
    "transformers.models.modernbert.modeling_modernbert.ModernBertAttention",
}
"""Classes whose rows are all queries, then all keys, then all values, although a probe cannot show it: they rotate the
keys, or read the weight of the projection instead of calling it."""
EXAMPLES = 2
"""Examples of the batch that a probe takes."""
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments with which a network calls one of its modules."""
ROUNDING = 1e-3
"""A change of the keys must have less than this share of the effect of one of the values."""


class SplitLinear(nn.Module):
    """Layers `query`, `key` and `value` (d, n) in place of a fused one (3d, n), so that each can have its own ΔW.

    It computes the same function of the same weights.
    """

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        for i, part in enumerate(("query", "key", "value")):
            rows = {name: p.detach().chunk(3)[i].clone() for name, p in fused.named_parameters()}
            layer = nn.Linear(fused.in_features, fused.out_features // 3, bias="bias" in rows, device="meta")
            layer.load_state_dict(rows, assign=True)
            self.add_module(part, layer)

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, 3d)."""
        return torch.cat([layer(x) for layer in self.children()], dim=-1)

    @property
    def weight(self) -> Tensor:
        """W + ΔW (3d, n), for networks that read the weight instead of calling the layer."""
        parts: list[Any] = [*self.children()]
        return torch.cat([part.weight for part in parts])


def join_fused(network: nn.Module) -> None:
    """Put one layer in the place of every `SplitLinear`, with the rows of its three parts one below another."""
    for name, module in [*network.named_modules()]:
        if isinstance(module, SplitLinear):
            parts = [part.state_dict() for part in module.children()]
            rows = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            m, n = rows["weight"].shape
            layer = nn.Linear(n, m, bias="bias" in rows, device="meta")
            layer.load_state_dict(rows, assign=True)
            replace_layer(network, name, layer)


def split_fused(network: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Replace every fused projection whose rows are all queries, all keys, all values by a `SplitLinear`.

    Others are left whole: TinyViT has queries, keys and values of each head beside each other, GCViT keys and values
    alone. A class that is not known is probed on `inputs` of a batch.
    """
    modules = dict(network.named_modules())
    fused = {name: module for name, module in modules.items() if isinstance(module, nn.Linear) and FUSED.search(name)}
    attention = {name: modules[name.rpartition(".")[0]] for name in fused}
    unknown = [module for module in attention.values() if _class_name(module) not in IN_THIRDS]
    was_training = network.training
    network.eval()
    calls = _record_calls(network, unknown, inputs) if unknown else {}
    for name, layer in fused.items():
        module = attention[name]
        known = _class_name(module) in IN_THIRDS
        if layer.out_features % 3 == 0 and (known or _is_in_thirds(module, layer, calls.get(module))):
            replace_layer(network, name, SplitLinear(layer))
    network.train(was_training)
    freeze_statistics(network)


@torch.no_grad()
def _is_in_thirds(attention: nn.Module, layer: nn.Linear, call: Call | None) -> bool:
    """Tell whether the second third of a projection's outputs are the keys.

    A constant that is added to all keys adds the same number to all of a query's logits, and softmax does not change.
    Where keys are normalised, a factor on all of them has no effect instead. A change of the values always has one.
    """
    if call is None:  # the network never calls it
        return False
    (args, kwargs), width = call, layer.out_features // 3
    constant = torch.cos(torch.arange(width, dtype=layer.weight.dtype, device=layer.weight.device))

    def output(third: int = 0, *, add: float = 0.0, factor: float = 1.0) -> Tensor:
        """Return what attention gives with one third of the projection's outputs changed."""
        rows = slice(third * width, (third + 1) * width)

        def change(module: nn.Module, args: object, out: Tensor) -> Tensor:
            changed = out.clone()
            changed[..., rows] = factor * changed[..., rows] + add * out.std() * constant
            return changed

        with layer.register_forward_hook(change):
            found = attention(*args, **kwargs)
        return found if isinstance(found, Tensor) else found[0]

    start = output()
    keys = min(float((output(1, **change) - start).norm()) for change in ({"add": 1.0}, {"factor": 2.0}))
    return keys < ROUNDING * float((output(2, add=1.0) - start).norm())


@torch.no_grad()
def _record_calls(network: nn.Module, modules: list[nn.Module], inputs: Mapping[str, Tensor]) -> dict[nn.Module, Call]:
    """Return the last call of each module in a forward pass."""
    calls: dict[nn.Module, Call] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[module] = args, kwargs

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_pre_hook(keep, with_kwargs=True))
        network(**{name: value[:EXAMPLES] for name, value in inputs.items()})
    return calls


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
