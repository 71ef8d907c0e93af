"""Running statistics of normalisation layers: frozen layers keep theirs, those of trained layers are exported."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def freeze_statistics(network: nn.Module) -> None:
    """Put every layer with running statistics whose weight does not train into evaluation mode.

    In training mode a BatchNorm moves its mean and variance at every forward pass, trained or not: a frozen network
    would change, and an example's features would depend on its batch. A layer without a weight trains only where the
    whole network does. Call it after `network.train()`, which switches every layer to training mode.
    """
    for _, layer, trains in _normalisations(network):
        if not trains:
            layer.eval()


def moving_statistics(network: nn.Module) -> dict[str, Tensor]:
    """Return running mean, variance and count, by name, of the layers that `freeze_statistics` does not freeze."""
    return {
        f"{name}.{key}" if name else key: buffer.detach()
        for name, layer, trains in _normalisations(network)
        if trains
        for key, buffer in layer.named_buffers(recurse=False)
    }


def _normalisations(network: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield the name of every layer with running statistics, the layer, and whether it trains."""
    everything = all(parameter.requires_grad for parameter in network.parameters())
    for name, layer in network.named_modules():
        if isinstance(getattr(layer, "running_mean", None), Tensor):
            weight = getattr(layer, "weight", None)
            yield name, layer, weight.requires_grad if isinstance(weight, Tensor) else everything
