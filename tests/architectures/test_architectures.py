"""Every method on every architecture: it does what its record claims, or refuses, as docs/backbones.md says."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, METHODS, adapted, examine, outcome
from torch import nn

from bench.api.lowrank.fused import IN_THIRDS, SplitLinear, split_fused
from bench.api.lowrank.targets import FUSED
from bench.core.errors import UsageError
from bench.training.gradients import missing_gradients

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
SIGNS = {
    (name, column): sign
    for name, cells in re.findall(r"^\| ([^|]+) \| (.*) \|$", PAGE, flags=re.M)
    for column, sign in zip(METHODS, cells.split(" | "), strict=True)
}


@pytest.mark.parametrize("column", METHODS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_method_on_an_architecture(name: str, column: str) -> None:
    sign, texts = outcome(name, column)
    assert sign == SIGNS[name, column], f"run `python docs/backbones.py` if this is right: {texts}"
    assert not [text for text in texts if text not in PAGE]


def test_the_page_names_nothing_else() -> None:
    assert {name for name, _ in SIGNS} == {*ARCHITECTURES}


WHOLE = {"TinyViT", "MaxViT", "EfficientFormer"}
"""Their projections called `qkv` have queries, keys and values of each head beside each other."""
SPLIT = {"ViT", "ViT, qk-norm", "BEiT", "EVA-02", "CaiT", "XCiT", "Swin", "SwinV2", "Twins", "ModernBERT"}


@pytest.mark.parametrize("name", sorted(WHOLE | SPLIT))
def test_only_projections_in_thirds_are_split(name: str) -> None:
    architecture = ARCHITECTURES[name]
    network = architecture.network()
    split_fused(network, architecture.inputs)
    kinds = {type(module) for name, module in network.named_modules() if FUSED.search(name)}
    assert (SplitLinear in kinds) == (name in SPLIT) and (nn.Linear in kinds) == (name in WHOLE)


def test_a_network_may_have_both_kinds() -> None:
    """GCViT's global blocks have keys and values alone in a layer called `qkv`."""
    architecture = ARCHITECTURES["GCViT"]
    network = architecture.network()
    split_fused(network, architecture.inputs)
    kinds = {name: type(module) for name, module in network.named_modules() if FUSED.search(name)}
    assert [*kinds.values()] == [SplitLinear, nn.Linear, SplitLinear, SplitLinear, SplitLinear]


@pytest.mark.parametrize("name", ["BEiT", "EVA-02", "ModernBERT", "SwinV2"])
@torch.no_grad()
def test_known_classes_have_their_rows_in_thirds(name: str) -> None:
    """With queries of zero no change of the keys has an effect; one of the values has."""
    architecture = ARCHITECTURES[name]

    def output(change: int | None) -> torch.Tensor:
        network: Any = architecture.network()
        known = [m for m in network.modules() if f"{type(m).__module__}.{type(m).__qualname__}" in IN_THIRDS]
        assert known
        for attention in known:
            [fused] = [m for n, m in attention.named_children() if n in ("qkv", "Wqkv")]
            for parameter in (fused.weight, getattr(attention, "q_bias", None)):
                if parameter is not None:
                    parameter[: len(parameter) // (3 if parameter is fused.weight else 1)] = 0
            if change is not None:
                fused.weight.chunk(3)[change].mul_(2)
        return network(**architecture.inputs)

    assert torch.allclose(output(1), output(None), rtol=0, atol=1e-12)
    assert not torch.allclose(output(2), output(None), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["GCViT", "TinyViT", "ConvNeXt", "ResNet"])
def test_adapters_are_as_wide_as_the_channels(name: str) -> None:
    """GCViT's and TinyViT's blocks have the channels last; an adapter there ran along the height of the image."""
    method: Any = adapted(ARCHITECTURES[name], "adapter")
    widths = {adapter.down.in_features for adapter in method.adapters.values()}
    assert widths == {stage["num_chs"] for stage in method.backbone.model.feature_info[-4:]}


def test_presets_that_match_partly_count_what_they_find() -> None:
    notes = {name: adapted(ARCHITECTURES[name], "lora").warnings() for name in ("PVTv2", "ConViT", "BERT")}
    text = "method.target=qv does not find all it names in this network: {} projections"
    assert notes == {
        "PVTv2": [text.format("4 query, 0 value")],
        "ConViT": [text.format("0 query, 2 value")],
        "BERT": [],
    }


def test_the_attention_preset_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """ALBERT calls its output projection `dense`, DeBERTa has one layer `in_proj`."""
    monkeypatch.setitem(METHODS, "attention", ("lora", {"target": "attention"}))
    notes = {name: adapted(ARCHITECTURES[name], "attention").warnings() for name in ("ALBERT", "DeBERTa", "BERT")}
    text = "method.target=attention does not find all it names in this network: {} projections"
    assert notes == {
        "ALBERT": [text.format("1 query, 1 key, 1 value, 0 output")],
        "DeBERTa": [text.format("0 query, 0 key, 0 value, 2 output")],
        "BERT": [],
    }


@pytest.mark.parametrize("column", ["bitfit", "peft:vera"])
def test_trained_tensors_without_a_gradient(column: str) -> None:
    """ESM's contact head is never called; BEiT reads the weights that peft's tuners wrap."""
    name = {"bitfit": "ESM", "peft:vera": "BEiT"}[column]
    method = adapted(ARCHITECTURES[name], column)
    method.loss({"inputs": ARCHITECTURES[name].inputs, "labels": torch.arange(2 + (name == "ESM"))}).backward()
    if name == "BEiT":
        with pytest.raises(UsageError, match="nothing that the method trains in the backbone has a gradient"):
            missing_gradients(method)
        return
    [warning] = missing_gradients(method)
    assert "trained tensors have no gradient and keep their start: backbone.model.contact_head" in warning


@pytest.mark.parametrize("name", ["BEiT", "ViT"])
def test_dropout_that_cannot_act_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BEiT reads the weight of its fused projection, so nothing drops the input of the update."""
    monkeypatch.setitem(METHODS, "dropout", ("lora", {"dropout": 0.1}))
    notes = examine(ARCHITECTURES[name], "dropout")
    expected = "method.dropout acted in 0 of 4 adapted layers: the network reads the weights of the others instead of "
    assert [note.startswith(expected) for note in notes] == [True] * (name == "BEiT")


class OfTorch(nn.Module):
    """Self-attention of torch, which reads `out_proj.weight` and never calls `out_proj`."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0].mean(1)


@pytest.mark.parametrize(
    ("column", "options"),
    [("lora", {}), ("lora", {"dora": True}), ("lora", {"init": "pissa"}), ("deeplora", {}), ("adalora", {})],
)
def test_the_output_projection_of_torchs_attention(
    column: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "column", (column, {**options, "rank": 2, "target": "out_proj"}))
    x = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    architecture: Any = SimpleNamespace(size=1, network=lambda: OfTorch().double().eval(), inputs={"x": x})
    assert examine(architecture, "column") == []
