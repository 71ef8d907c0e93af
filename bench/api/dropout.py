"""Dropout of a network: set every rate, before or after it is built, and tell whether any acts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

OTHERS = "classifier_|qa_|seq_classif_|summary_|token_|path_"
RATE = re.compile(rf"(?!{OTHERS})(\w+_)?(dropout|pdrop)(_(prob|p|rate|ratio))?")
"""Names of dropout rates in networks and configurations, without those of heads, which the suite does not load, and of
what drops whole tokens or paths."""
LAYER_RATE = re.compile(r"(\w+_)?layer_?drop")
"""Names of LayerDrop's rates: it leaves out whole layers, which is no dropout, and never acts here."""
IDLE = re.compile(r"(\w+_)?(out_drop|dropout)")
"""Names of modules that are dropout in a network that was built with a positive rate, and nothing in others."""


def set_dropout(network: nn.Module, rate: float) -> int:
    """Set every dropout rate, and return how many there were; 0 means that dropout cannot act on this network.

    Rates are in dropout modules, in numbers of attentions and blocks, which a forward hands to a function (nn, BART,
    ModernBERT), and in the number that timm's classic convolutional networks (ResNet, EfficientNet) apply to pooled
    features. The rates in a transformers configuration are set too, but not counted.
    """
    if rate:
        _wake(network)
    places = [*_rates(network)]
    for module, name in places:
        setattr(module, name, rate)
    for module in network.modules():
        _set_matching(module, LAYER_RATE, 0.0)
        if hasattr(module, "config"):
            set_config(module.config, rate)
    return len(places)


def set_config(config: object, rate: float) -> None:
    """Set every dropout rate in a configuration of transformers, and in those that it holds."""
    _set_matching(config, RATE, rate)
    _set_matching(config, LAYER_RATE, 0.0)
    for part in vars(config).values():
        if hasattr(part, "model_type"):
            set_config(part, rate)


def drops(network: nn.Module) -> bool:
    """Tell whether any dropout acts in training."""
    return any(getattr(module, name) > 0 for module, name in _rates(network))


def _rates(network: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield every module with a dropout rate, and the attribute that holds it."""
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            yield module, "p"
        elif _drops_pooled_features(module):
            yield module, "drop_rate"
        yield from ((module, name) for name in _matching(module, RATE))


def _matching(holder: object, names: re.Pattern[str]) -> list[str]:
    """List the attributes of these names that hold a rate."""
    values = getattr(holder, "__dict__", {}).items()
    return [name for name, value in values if names.fullmatch(name) and type(value) in (float, int) and 0 <= value < 1]


def _set_matching(holder: object, names: re.Pattern[str], rate: float) -> None:
    for name in _matching(holder, names):
        setattr(holder, name, rate)


def _wake(network: nn.Module) -> None:
    """Put dropout in place of the modules that do nothing, because the network was built with rate 0."""
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.Identity and IDLE.fullmatch(name):
                setattr(module, name, nn.Dropout(0.0))


def _drops_pooled_features(module: nn.Module) -> bool:
    """Tell whether timm's `forward_head` reads the number `drop_rate`: the head has no dropout module of its own."""
    if not hasattr(module, "forward_head") or not isinstance(getattr(module, "drop_rate", None), float):
        return False
    return not any(name.startswith("head") and isinstance(m, _DropoutNd) for name, m in module.named_modules())
