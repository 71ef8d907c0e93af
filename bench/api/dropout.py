"""Every dropout of a network: set to one rate after it was built, and whether there is any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

CONFIG_RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
"""Names of dropout rates in the configurations of transformers' encoders."""


def set_dropout(network: nn.Module, rate: float) -> int:
    """Set the rate everywhere; it acts in training mode only.

    Places are: dropout modules (attention too: timm and transformers read the rate from its module), the rate that
    `nn.MultiheadAttention` and some of transformers' attentions keep as a number, and the one that timm's classic
    convolutional networks (ResNet, EfficientNet) apply to pooled features. A transformers configuration says the same
    afterwards, but is no place of its own.

    Returns:
        How many places there are; 0 means that dropout cannot act on this network.
    """
    places = [*_places(network)]
    for module, name in places:
        setattr(module, name, rate)
    for module in network.modules():
        _tell(getattr(module, "config", None), rate)
    return len(places)


def drops(network: nn.Module) -> bool:
    """Whether any of these places drops something in training."""
    return any(getattr(module, name) > 0 for module, name in _places(network))


def _places(network: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Modules that drop, and the attribute that holds the rate."""
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            yield module, "p"
        elif isinstance(module, nn.MultiheadAttention):
            yield module, "dropout"
        elif isinstance(getattr(module, "attention_dropout", None), float):
            yield module, "attention_dropout"
        elif _drops_pooled_features(module):
            yield module, "drop_rate"


def _drops_pooled_features(module: nn.Module) -> bool:
    """Whether timm's `forward_head` reads the number `drop_rate`: where the head has no dropout module of its own."""
    if not hasattr(module, "forward_head") or not isinstance(getattr(module, "drop_rate", None), float):
        return False
    return not any(name.startswith("head") and isinstance(m, _DropoutNd) for name, m in module.named_modules())


def _tell(config: Any, rate: float) -> None:
    for name in CONFIG_RATES:
        if isinstance(getattr(config, name, None), float | int):
            setattr(config, name, rate)
