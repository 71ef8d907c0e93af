"""Convolutions against `peft`: LoRA's forward and step, adapters it loads, adapters it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from image_reference import CASES, R, adapted, images, resnet, shake
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from bench.api.peft import open_folder, write_folder
from bench.core import registry


def theirs(model: nn.Module, names: str, **options: Any) -> Any:
    return get_peft_model(model, LoraConfig(r=R, lora_alpha=6, target_modules=names, **options)).double().eval()


@pytest.mark.parametrize(
    "options", [{}, {"scaling": "rank-stabilized"}, {"dora": True}], ids=["lora", "rslora", "dora"]
)
def test_a_step_is_pefts(options: dict[str, Any]) -> None:
    """Forward, and one step of AdamW, from the same A, B and magnitudes."""
    method = adapted("lora", resnet(), rank=R, alpha=6.0, **options)
    given = {"use_rslora": "scaling" in options, "use_dora": "dora" in options}
    reference = theirs(resnet().model, r".*(conv\d|downsample\.0)", **given)
    shake(method, 0.1)
    found = 0
    with torch.no_grad():
        for name, layer in method.layers():
            other = reference.base_model.model.get_submodule(name.removeprefix("model."))
            other.lora_A["default"].weight.copy_(layer.factors[0])
            other.lora_B["default"].weight.copy_(layer.factors[1][:, :, None, None])
            if "dora" in options:
                other.lora_magnitude_vector["default"].weight.copy_(layer.magnitude.view(1, -1, 1, 1))
            found += 1
    assert found == 13
    x = images(4)
    target = torch.randn(4, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for network, module in ((method.backbone, method.backbone), (reference, reference)):
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        F.mse_loss(network(x), target).backward()
        optimizer.step()
    start = resnet()(x)
    assert torch.allclose(method.backbone(x), reference(x), rtol=0, atol=1e-6)
    assert (method.backbone(x) - start).abs().max() > 1e-2
    for name, layer in method.layers():
        other = reference.base_model.model.get_submodule(name.removeprefix("model."))
        assert torch.allclose(layer.factors[0], other.lora_A["default"].weight, rtol=0, atol=1e-6)
        assert torch.allclose(layer.factors[1], other.lora_B["default"].weight[..., 0, 0], rtol=0, atol=1e-6)


EXPORTS = [*((CASES[c], {}, r"^model\.") for c in CASES), (CASES["lora"], {}, r"^model\.conv1$")]
EXPORTS += [(CASES["lora"], {"policy": "depth"}, r"^model\.")]


@pytest.mark.parametrize(("case", "allocation", "target"), EXPORTS)
@torch.no_grad()
def test_peft_computes_an_exported_adapter(tmp_path: Path, case: Any, allocation: dict[str, Any], target: str) -> None:
    name, options = case
    method = adapted(name, resnet(), allocation=allocation, target=target, **options)
    shake(method, 0.1)
    if name == "adalora":
        for _, layer in method.layers():
            layer.factors[1][1:3] = 0
    write_folder(tmp_path / "adapter", *method.peft(method.config, method.export()), {}, {})
    plain, x = resnet(), images(3)
    reference = PeftModel.from_pretrained(plain.model, str(tmp_path / "adapter")).eval()
    changed = [n for n, m in reference.base_model.model.named_modules() if hasattr(m, "lora_A")]
    assert changed == [n.removeprefix("model.") for n, _ in method.layers()], "these layers and no other"
    want = method.backbone(x)
    assert torch.allclose(reference(x), want, rtol=0, atol=1e-9)
    assert (want - resnet()(x)).abs().max() > 1e-3


@pytest.mark.parametrize("dora", [False, True])
@torch.no_grad()
def test_an_adapter_of_peft_is_a_start(tmp_path: Path, dora: bool) -> None:
    reference = theirs(resnet().model, r"conv1|layer2\.0\.(conv2|downsample\.0)", use_dora=dora)
    shake(reference)
    reference.save_pretrained(tmp_path / "theirs")
    kind: Any = registry.load("methods", "lora")
    decided = kind.from_peft(open_folder(tmp_path / "theirs"))
    method = adapted("lora", resnet(), **decided, start=str(tmp_path / "theirs"))
    assert len([*method.layers()]) == 3
    x = images(3)
    assert torch.allclose(method.backbone(x), reference(x), rtol=0, atol=1e-9)
    assert not torch.allclose(resnet()(x), reference(x), atol=1e-2)
