"""Dropout of a network: set every rate after it was built, and tell whether any acts."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

CONFIG_RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
"""Names of dropout rates in the configurations of transformers' encoders."""


def set_dropout(network: nn.Module, rate: float) -> int:
    """Set every dropout rate, and return how many there were; 0 means that dropout cannot act on this network.

    Rates are in dropout modules (attention too: timm and transformers read the rate from its module), in numbers of
    `nn.MultiheadAttention` and some of transformers' attentions, and in the number that timm's classic convolutional
    networks (ResNet, EfficientNet) apply to pooled features. The rates in a transformers configuration are set too, but
    not counted.
    """
    places = [*_rates(network)]
    for module, name in places:
        setattr(module, name, rate)
    for config in (getattr(module, "config", None) for module in network.modules()):
        for name in CONFIG_RATES:
            if isinstance(getattr(config, name, None), float | int):
                setattr(config, name, rate)
    return len(places)


def drops(network: nn.Module) -> bool:
    """Tell whether any dropout acts in training."""
    return any(getattr(module, name) > 0 for module, name in _rates(network))


def _rates(network: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield every module with a dropout rate, and the attribute that holds it."""
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
    """Tell whether timm's `forward_head` reads the number `drop_rate`: the head has no dropout module of its own."""
    if not hasattr(module, "forward_head") or not isinstance(getattr(module, "drop_rate", None), float):
        return False
    return not any(name.startswith("head") and isinstance(m, _DropoutNd) for name, m in module.named_modules())
