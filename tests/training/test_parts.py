"""What a run says of batches that are cut into parts: whatever then depends on how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from image_reference import Net, adapted, resnet, vit

from bench.api.batching import BatchSplit
from bench.training.trainer import _shares


def dropping_resnet() -> Net:
    net = resnet()
    net.model.drop_rate = 0.2  # timm's ResNet has no module for it
    return net


@pytest.mark.parametrize(
    ("method", "network", "options", "said"),
    [
        ("full", vit, {}, []),
        ("full", resnet, {}, ["BatchNorm"]),
        ("lora", resnet, {}, []),
        ("lora", resnet, {"dropout": 0.1}, ["dropout"]),
        ("adapter", vit, {"dropout": 0.1}, ["dropout"]),
        ("linear", dropping_resnet, {}, ["dropout"]),
    ],
)
def test_what_depends_on_the_parts_is_said(
    method: str, network: Callable[[], Net], options: dict[str, Any], said: list[str]
) -> None:
    made = adapted(method, network(), **options)
    whole, cut, spread = BatchSplit(batch_size=8), BatchSplit(batch_size=8, micro=4), BatchSplit(batch_size=8, world=2)
    assert _shares(made, whole) == []
    assert [line.split()[0] for line in _shares(made, cut)] == said
    assert _shares(made, cut) == _shares(made, spread)
