"""Dropout of every network, as an option and set afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import ENCODERS, encoder, tokens
from networks import SMALL, build, images
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig

from bench.api.dropout import drops, set_config, set_dropout
from bench.backbones.text_encoders import from_folder
from bench.backbones.text_network import load_pretrained
from bench.config.sections import BackboneConfig, HeadConfig
from bench.core.errors import UsageError


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


class Rates(TorchFunctionMode):
    """Counts the rates with which torch's functions are called, those of attention too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[float] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is F.dropout:
            self.calls[given.get("p", args[1] if len(args) > 1 else 0.5)] += 1
        if func is F.scaled_dot_product_attention:
            self.calls[given.get("dropout_p", 0.0)] += 1
        return func(*args, **given)


def rates(network: nn.Module) -> Counter[float]:
    with Rates() as recorder, torch.no_grad():
        network.train()(**tokens())
    return recorder.calls


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., nn.Module]:
    """Loads an encoder as the suite does, from a folder whose configuration has transformers' own rates."""

    def load(kind: str, rate: float, **options: Any) -> nn.Module:
        encoder(kind, **options).save_pretrained(tmp_path / kind)
        (tmp_path / kind / "vocab.txt").write_text("[UNK]\n")
        backbone = from_folder(kind, tmp_path / kind, BackboneConfig(dropout=rate))
        unused: Any = None
        return load_pretrained(backbone, task=unused, head=HeadConfig(), seed=0)

    return load


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_place_of_an_encoder_has_the_rate(kind: str, loaded: Callable[..., nn.Module]) -> None:
    """At rate 0 two passes are equal to the bit; else they differ, and every call of torch gets the rate."""
    still, noisy = loaded(kind, 0.0), loaded(kind, 0.5)
    assert not drops(still) and drops(noisy)
    assert {*rates(still)} == {0.0}
    first, second = (still(**tokens()) for _ in range(2))
    assert torch.equal(first, second)
    assert {*rates(noisy)} == {0.5}
    assert not torch.equal(noisy(**tokens()), noisy(**tokens()))
    assert rates(noisy).total() == _places_of_transformers(kind)
    set_dropout(still, 0.5)
    assert rates(still) == rates(noisy), "set afterwards, as if it was built so"


def _places_of_transformers(kind: str) -> int:
    """How many calls a network has all of whose configured rates are positive."""
    config = AutoConfig.for_model(kind, **ENCODERS[kind])
    names = [n for n, v in config.to_dict().items() if "drop" in n and "layer" not in n and type(v) in (int, float)]
    network: Any = encoder(kind, **dict.fromkeys(names, 0.25))
    return rates(network.get_encoder() if network.config.is_encoder_decoder else network)[0.25]


def test_layers_are_not_left_out_at_random(loaded: Callable[..., nn.Module]) -> None:
    network = loaded("bart", 0.0, encoder_layerdrop=0.5, decoder_layerdrop=0.5).train()
    assert all(torch.equal(network(**tokens()), network(**tokens())) for _ in range(5))


def test_rates_of_other_things_stay() -> None:
    config = AutoConfig.for_model("distilbert", seq_classif_dropout=0.2, qa_dropout=0.3)
    set_config(config, 0.5)
    assert (config.dropout, config.attention_dropout) == (0.5, 0.5)
    assert (config.seq_classif_dropout, config.qa_dropout) == (0.2, 0.3)


def test_an_encoder_without_dropout_is_refused(loaded: Callable[..., nn.Module], monkeypatch: Any) -> None:
    monkeypatch.setattr("bench.backbones.text_network.set_dropout", lambda network, rate: 0)
    with pytest.raises(UsageError, match=r"backbone\.dropout=0\.5 would have no effect"):
        loaded("bert", 0.5)
    loaded("bert", 0.0)
