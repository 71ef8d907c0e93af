"""The function that a method computes, and the same from the backbone with ΔW added to its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.api.batching import Batch
from bench.api.lowrank.fused import split_fused
from bench.api.method import Method
from bench.api.network import Network
from bench.spectra import Delta

SHAKE = 0.2
"""Standard deviation of what `shake` adds."""

Changes = Mapping[str, tuple[Tensor | None, Delta]]
"""Name of a layer → W(0), or None where it is the backbone's, and ΔW."""


@torch.no_grad()
def outputs(method: Method, batch: Batch, network: Network | None = None) -> Tensor:
    """Return what a method computes of a batch, or what its head makes of another network's features."""
    inputs = inputs_of(method, batch)
    return method(inputs) if network is None else method.predict(network(**inputs))


def inputs_of(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Return the inputs of a batch in the precision of the method."""
    dtype = next(method.head.parameters()).dtype
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch["inputs"].items()}


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((a.double() - b.double()).abs().max())


@torch.no_grad()
def shake(method: Method) -> None:
    """Move all that trains far from its start, so that a wrong sign or scale shows."""
    generator = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * SHAKE
            parameter.add_(noise.to(parameter))


def changes_of(method: Method) -> Changes:
    """Return what `updates` yields, or else `deltas`."""
    with_start = {name: (start, delta) for name, start, delta in method.updates()}
    return with_start or {name: (None, delta) for name, delta in method.deltas()}


@torch.no_grad()
def merged(network: Network, method: Method, batch: Batch) -> tuple[Network, set[str]]:
    """Give the backbone's network the method's ΔW, and whatever else of its own parameters the method trained.

    Returns:
        the network, and names of layers with a ΔW that it does not have.
    """
    changes = changes_of(method)
    if {*changes} - {name for name, _ in network.named_modules()}:
        split_fused(network, inputs_of(method, batch))  # the parts of a fused projection have a ΔW each
    known = network.state_dict()
    exported = {name.removeprefix("backbone."): tensor for name, tensor in method.export().items()}
    network.load_state_dict({name: tensor for name, tensor in exported.items() if name in known}, strict=False)
    modules = dict(network.named_modules())
    adapted = dict(method.backbone.named_modules())
    for name in changes.keys() & modules.keys():
        start, delta = changes[name]
        weight = modules[name].get_parameter("weight")
        before = known[f"{name}.weight"] if start is None else start.view_as(weight)
        weight.copy_(before + delta.dense().view_as(weight))
        bias = getattr(adapted.get(name), "bias", None)
        if isinstance(bias, Tensor):
            modules[name].get_parameter("bias").copy_(bias)
    return network, changes.keys() - modules.keys()
