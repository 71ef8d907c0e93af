"""Tuners of peft on image networks: what they start from, what they merge into, what is saved, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from image_reference import adapted, images, resnet, shake, vit
from merging import merge
from peft import PeftModel
from torch import nn

from bench.api.peft import write_folder
from bench.core.errors import UsageError

WHOLE = [f"model.blocks.{i}.attn.qkv" for i in range(3)]
ON_VIT: list[tuple[str, dict[str, Any]]] = [
    ("vera", {"r": 4}),
    ("ia3", {}),
    ("ia3", {"target": "all-linear"}),
    ("oft", {"oft_block_size": 8}),
    ("lora", {"target": "all"}),
    ("ln_tuning", {}),
]
ON_RESNET: list[tuple[str, dict[str, Any]]] = [
    ("lora", {}),
    ("lora", {"use_dora": True}),
    ("lora", {"target": r"^conv1$"}),
    ("loha", {"r": 4}),
    ("lokr", {"r": 4}),
    ("hra", {"r": 4}),
    ("hira", {"r": 4}),
    ("ia3", {}),
    ("boft", {"boft_block_size": 3, "target": r"layer\d\.0\.conv"}),
]
CASES = [(vit, *case) for case in ON_VIT] + [(resnet, *case) for case in ON_RESNET]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("network", "tuner", "options"), CASES)
@torch.no_grad()
def test_a_tuner_starts_merges_and_is_saved(network: Any, tuner: str, options: dict[str, Any], tmp_path: Path) -> None:
    method, plain, x = adapted(f"peft:{tuner}", network(), **options), network(), images(3)
    start = plain(x)
    assert torch.allclose(method.backbone(x), start, rtol=0, atol=1e-6)
    shake(method, 0.1)
    want = method.backbone(x)
    assert (want - start).abs().max() > 1e-3
    write_folder(tmp_path / "adapter", *method.peft(method.config, method.export()), {}, {})
    deltas = dict(method.deltas())
    before = {n: layer.base.weight.clone() for n, layer in method.layers() if n in deltas}
    merged = merge(method)
    assert torch.allclose(method.backbone(x), want, rtol=0, atol=1e-6)
    for name, weight in merged.items():
        if tuner != "ln_tuning":
            moved = (weight - before[name]).flatten(1)
            assert torch.allclose(moved, deltas[name].dense(), rtol=0, atol=1e-6) and moved.abs().max() > 1e-6
    again = PeftModel.from_pretrained(plain.model, str(tmp_path / "adapter")).double().eval()
    assert torch.allclose(again(x), want, rtol=0, atol=1e-6)


def test_which_layers_and_what_is_said() -> None:
    method = adapted("peft:vera", vit(), r=4)
    assert [n for n, _ in method.layers()] == WHOLE
    assert method.warnings() == ["query, key and value are one layer in this network, adapted whole: 3"]
    method = adapted("peft:lora", resnet())
    convolutions = [n for n, m in resnet().named_modules() if isinstance(m, nn.Conv2d)]
    assert [n for n, _ in method.layers()] == convolutions
    assert method.warnings() == ["no query and value projections in this network: its 13 convolutions are adapted"]
    only = adapted("peft:lora", resnet(), target=r"^conv1$")
    assert [n for n, _ in only.layers()] == ["model.conv1"], "and not layer1.0.conv1, whose name ends alike"


def test_ia3_scales_inputs_of_the_second_feed_forward_layer() -> None:
    method = adapted("peft:ia3", vit(), target="all-linear")
    gains = {n: layer.tuned.ia3_l["default"].shape for n, layer in method.layers()}
    assert {n: s for n, s in gains.items() if s[0] == 1} == {f"model.blocks.{i}.mlp.fc2": (1, 128) for i in range(3)}
    assert gains["model.blocks.0.mlp.fc1"] == (128, 1)


def test_a_network_that_holds_no_other_is_adapted_too() -> None:
    network: Any = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()

    class Bare(nn.Module):
        width = 4

        def __init__(self) -> None:
            super().__init__()
            self.layers = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x.mean((2, 3)).repeat(1, 2))

    method = adapted("peft:lora", Bare().double())
    assert [n for n, _ in method.layers()] == ["layers.0", "layers.2"]
    assert method.backbone.width == 4
    shake(method)
    x, deltas = images(2), dict(method.deltas())
    one, two = (network[i].get_base_layer() for i in (0, 2))
    hidden = (x.mean((2, 3)).repeat(1, 2) @ (one.weight + deltas["layers.0"].dense()).mT + one.bias).relu()
    want = hidden @ (two.weight + deltas["layers.2"].dense()).mT + two.bias
    assert torch.allclose(method.backbone(x=x), want, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tuner", "known"),
    [
        ("vera", "VeRA"),
        ("miss", "Conv2d"),
        ("osf", "adapts none of 13 layers"),
        ("oft", "padding"),
        ("tinylora", "conv1"),
    ],
)
def test_what_does_not_go_on_convolutions_is_refused_with_the_reason(tuner: str, known: str) -> None:
    options: dict[str, Any] = {"r": 4} if tuner == "miss" else {}
    with pytest.raises(UsageError, match=f"peft:{tuner}") as caught:
        adapted(f"peft:{tuner}", resnet(), **options)
    assert known in caught.value.known
    assert tuner == "oft" or "no query and value projections" in caught.value.known
