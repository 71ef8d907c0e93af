"""Every dropout of a network set to one rate, after it was built."""

from __future__ import annotations

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
    places = 0
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.p, places = rate, places + 1
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout, places = rate, places + 1
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout, places = rate, places + 1  # type: ignore[assignment]
        elif _drops_pooled_features(module):
            module.drop_rate, places = rate, places + 1  # type: ignore[assignment]
        _tell(getattr(module, "config", None), rate)
    return places


def _drops_pooled_features(module: nn.Module) -> bool:
    """Whether timm's `forward_head` reads the number `drop_rate`: where the head has no dropout module of its own."""
    if not hasattr(module, "forward_head") or not isinstance(getattr(module, "drop_rate", None), float):
        return False
    return not any(name.startswith("head") and isinstance(m, _DropoutNd) for name, m in module.named_modules())


def _tell(config: Any, rate: float) -> None:
    for name in CONFIG_RATES:
        if isinstance(getattr(config, name, None), float | int):
            setattr(config, name, rate)
