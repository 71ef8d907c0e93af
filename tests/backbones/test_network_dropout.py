"""Dropout of every network, as an option and set afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import SMALL, build, images
from torch import nn

from bench.api.dropout import set_dropout


@pytest.mark.parametrize("name", SMALL)
def test_dropout_is_what_was_asked(name):
    x = images((1, 28, 28))
    for rate in (0.0, 0.4):
        network = build(name, (1, 28, 28), dropout=rate, **SMALL[name]).train()
        twice = [network(x), network(x)]
        assert torch.equal(*twice) == (rate == 0.0)
        assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize(
    ("name", "places"), [("dln", 1), ("mlp", 3), ("vgg11", 1), ("resnet18", 1), ("vit", 2 * 4 + 2), ("bert", 2 * 3 + 1)]
)
def test_dropout_set_afterwards_is_the_option(name, places):
    if name == "bert":
        after, before = (build("bert", (), layers=2, hidden=16, heads=2, dropout=rate) for rate in (0.0, 0.3))
        inputs: dict[str, Any] = {"input_ids": torch.arange(12).view(2, 6), "attention_mask": torch.ones(2, 6).long()}
    else:
        after, before = (build(name, (1, 8, 8), dropout=rate, **SMALL[name]) for rate in (0.0, 0.3))
        inputs = {"x": images((1, 8, 8))}
    assert set_dropout(after, 0.3) == places
    outputs = []
    for network in (after, before):
        torch.manual_seed(0)
        outputs.append(network.train()(**inputs))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], after.eval()(**inputs))


def test_dropout_reaches_an_attention_that_keeps_it_as_a_number():
    layer = nn.TransformerEncoderLayer(8, 2, dropout=0.0)
    assert set_dropout(layer, 0.2) == 4
    assert layer.self_attn.dropout == 0.2
    assert set_dropout(nn.Linear(2, 2), 0.2) == 0
