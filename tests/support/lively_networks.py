"""Networks as if they had been trained: timm starts residual branches at zero, and frozen they would stay there."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.backbones import open_backbone


def load(backbone: Any, **arguments: Any) -> nn.Module:
    """The network of the same name and options with every scale of a normalisation at 1."""
    network = open_backbone(backbone.name, backbone.config).load(**arguments)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1)
    return network
