"""Backbones that are built, opened and loaded without a plan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.api.backbone import Backbone
from bench.api.task import TaskSpec
from bench.backbones.dln import DLN
from bench.backbones.image_networks import VGG11, ResNet18, Timm, ViT
from bench.backbones.mlp import MLP
from bench.backbones.text_encoders import BERT
from bench.config.sections import HeadConfig

SMALL: dict[str, dict[str, Any]] = {
    "dln": {"width": 16},
    "mlp": {"width": 16},
    "mlp gelu norm": {"width": 16, "activation": "gelu", "norm": "layer"},
    "vgg11": {"width": 4},
    "vgg11 plain": {"width": 4, "norm": "none"},
    "resnet18": {},
    "resnet18 cifar": {"stem": "cifar"},
    "resnet18 imagenet": {"stem": "imagenet"},
    "vit": {"width": 24, "depth": 2},
    "vit mean": {"width": 24, "depth": 2, "pool": "mean"},
    "timm:resnet10t": {},
}


def task(shape: tuple[int, ...], modality: Any = "image") -> TaskSpec:
    metrics = ("accuracy",)
    return TaskSpec(
        name="t", version=1, modality=modality, num_classes=10, metrics=metrics, primary=metrics, shape=shape
    )


OPENERS = {"dln": DLN, "mlp": MLP, "vgg11": VGG11, "resnet18": ResNet18, "vit": ViT, "bert": BERT}


def found(name: str, **options: Any) -> Backbone:
    """`name` is a backbone's, and may go on with what tells two sets of options apart."""
    name = name.split(" ")[0]
    opener: Any = OPENERS.get(name, Timm)
    return opener().open(name, opener.Config(**options))


def build(name: str, shape: tuple[int, ...], seed: int = 0, **options: Any) -> Any:
    return found(name, **options).load(task=task(shape), head=HeadConfig(), seed=seed)


def images(shape: tuple[int, ...]) -> Tensor:
    """Four of them."""
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
