"""ΔW of adapters on disk: held against what peft and our methods compute."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records import list_files
from safetensors.torch import save_file
from torch import Tensor

from bench.core import registry
from bench.core.errors import UsageError
from bench.records import record
from bench.spectra.files import adapters, layer_metrics


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def peft_folder(folder: Path, network: torch.nn.Module, **options: Any) -> Any:
    """An adapter of peft with random B, saved; the network with it."""
    from peft import LoraConfig, get_peft_model

    made = get_peft_model(network, LoraConfig(**options))
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            parameter.data = drawn(*parameter.shape, seed=len(name)).float()
    made.save_pretrained(str(folder))
    return made


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 12)
        self.up, self.down = torch.nn.Linear(12, 16), torch.nn.Linear(16, 12)
        self.conv = torch.nn.Conv2d(4, 6, 3)


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_adapters_equal_what_peft_adds(rslora: bool, tmp_path: Path) -> None:
    options = {"rank_pattern": {"up": 3}, "alpha_pattern": {"down": 5}, "r": 4, "lora_alpha": 9, "use_rslora": rslora}
    made = peft_folder(tmp_path / "a", Network(), target_modules=["up", "down", "conv", "embed"], **options)
    found = dict(adapters.deltas_of_folder(tmp_path / "a"))
    assert set(found) == {"up", "down", "conv", "embed"}
    for name, delta in found.items():
        layer = made.base_model.model.get_submodule(name)
        theirs = layer.get_delta_weight("default").detach().flatten(1)
        assert torch.allclose(delta.dense().float(), theirs, rtol=1e-5, atol=1e-5), name
        (row,) = layer_metrics.measure_deltas([(name, delta)])
        assert row.numbers["norm"] == pytest.approx(np.linalg.norm(theirs.double().numpy(), 2), rel=1e-4)
        assert row.nominal == (3 if name == "up" else 4)


def test_dora_and_other_tuners_are_refused(tmp_path: Path) -> None:
    peft_folder(tmp_path / "a", Network(), target_modules=["up"], use_dora=True)
    with pytest.raises(UsageError, match="not a product") as caught:
        adapters.deltas_of_folder(tmp_path / "a")
    assert "DoRA" in caught.value.known
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "VERA"}))
    with pytest.raises(UsageError, match="not a product"):
        adapters.deltas_of_folder(tmp_path / "a")


@pytest.mark.parametrize(
    ("method", "options", "factors"),
    [
        ("lora", {"rank": 2, "alpha": 6.0}, [(2, 8), (8, 2)]),
        ("deeplora", {"rank": 4, "depth": 3}, [(4, 8), (4, 4), (8, 4)]),
        ("adalora", {"rank": 2, "alpha": 3.0}, [(3, 8), (3, 1), (8, 3)]),
    ],
)
@pytest.mark.usefixtures("any_id")
def test_adapters_of_runs_equal_their_method_s_delta(
    method: str,
    options: dict[str, Any],
    factors: list[tuple[int, int]],
    tmp_path: Path,
    make_record: Callable[..., Any],
) -> None:
    made = make_record(spec={"method": method})
    made.spec.options.method.clear()
    made.spec.options.method.update(registry.load_config("methods", method)(**options).to_json())
    folder = record.folder(tmp_path, made.run_id)
    record.write(made, folder)
    layers = ["model.a.qkv.query", "model.a.qkv.value"]  # parts of a fused projection stay apart
    tensors = {
        f"backbone.{layer}.factors.{i}": drawn(*shape, seed=10 * j + i).float()
        for j, layer in enumerate(layers)
        for i, shape in enumerate(factors)
    }
    save_file({**tensors, "head.weight": torch.ones(2, 8)}, folder / "adapter.safetensors")
    list_files(folder)
    found = dict(adapters.deltas_of_run(folder / "adapter.safetensors") or ())
    assert list(found) == layers
    scale = {"lora": 6 / 2, "deeplora": 1.0, "adalora": 3 / (3 + 1e-5)}[method]
    for layer in layers:
        first, *others = (tensors[f"backbone.{layer}.factors.{i}"].double() for i in range(len(factors)))
        product = first
        for factor in others:
            product = factor * product if factor.shape[1] == 1 else factor @ product
        assert torch.allclose(found[layer].dense().double(), scale * product, rtol=1e-5, atol=1e-5)
    shutil.copy(folder / "adapter.safetensors", tmp_path / "alone.safetensors")
    with pytest.raises(UsageError, match="scale"):
        adapters.deltas_of_run(tmp_path / "alone.safetensors")


def test_weights_are_no_adapter(tmp_path: Path) -> None:
    save_file({"backbone.w": torch.ones(2, 2)}, tmp_path / "adapter.safetensors")
    assert adapters.deltas_of_run(tmp_path / "adapter.safetensors") is None


class Experts(torch.nn.Module):
    """Experts as transformers fuses them: one weight (experts, out, in), one (experts, in, out)."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.is_transposed = transposed
        self.up, self.down = torch.nn.Parameter(torch.zeros(3, 10, 8)), torch.nn.Parameter(torch.zeros(3, 8, 5))


class Mixture(Network):
    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.experts = Experts(transposed=transposed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_every_expert_has_its_own_update(transposed: bool, rslora: bool, tmp_path: Path) -> None:
    """Against the weights that peft merges; the rank of each is r, and the scale that of r."""
    options = {"target_parameters": ["experts.up", "experts.down"], "target_modules": ["up"], "use_rslora": rslora}
    network = Mixture(transposed=transposed)
    made = peft_folder(tmp_path / "a", network, r=2, lora_alpha=9, **options)
    rows = {row.layer: row for row in layer_metrics.measure_deltas(adapters.deltas_of_folder(tmp_path / "a"))}
    assert {*rows} == {"up"} | {f"experts{inner}[{i}]" for inner in ("", ".base_layer") for i in range(3)}
    made.base_model.merge_adapter()
    stacks = {frozenset(p.shape[1:]): p for p in network.parameters() if p.ndim == 3}
    for inner in ("", ".base_layer"):
        for i in range(3):
            row = rows[f"experts{inner}[{i}]"]
            weight = stacks[frozenset(row.shape)]
            sigma = np.linalg.svd(weight[i].detach().double().numpy(), compute_uv=False)
            assert row.nominal == 2
            assert row.numbers["norm"] == pytest.approx(sigma[0], rel=1e-5)
            assert row.numbers["stable"] == pytest.approx((sigma**2).sum() / sigma[0] ** 2, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The following rank_pattern")
def test_experts_of_unknown_rank_are_refused(tmp_path: Path) -> None:
    options = {"target_parameters": ["experts.up", "experts.down"], "target_modules": [], "r": 2}
    peft_folder(tmp_path / "a", Mixture(transposed=False), rank_pattern={"experts.up": 4}, **options)
    with pytest.raises(UsageError, match=r"r differs between experts\.up and experts\.down"):
        list(adapters.deltas_of_folder(tmp_path / "a"))


@pytest.mark.parametrize("kind", ["ADALORA", "LORA"])
def test_an_update_without_triplets_has_rank_0(kind: str) -> None:
    config = {"peft_type": kind, "init_r": 2, "r": 2, "lora_alpha": 4}
    kept = {"lora_A": drawn(2, 8), "lora_B": drawn(6, 2), "lora_E": drawn(2, 1)}
    pruned = {"lora_A": torch.zeros(0, 8), "lora_B": torch.zeros(6, 0), "lora_E": torch.zeros(0, 1)}
    if kind == "LORA":
        del kept["lora_E"], pruned["lora_E"]
    tensors = {f"base_model.model.{i}.q.{k}": t for i, parts in enumerate((kept, pruned)) for k, t in parts.items()}
    deltas = [*adapters.deltas_of_peft(config, tensors, "here")]
    for every in (False, True):
        first, second = layer_metrics.measure_deltas(deltas, every=every)
        assert first.numbers["norm"] > 0 and first.nominal == 2
        assert second.nominal == 0 and second.shape == (6, 8) and not second.error
        assert set(second.numbers.values()) == {0}
    assert deltas[1][1].ranks("1.q").norm == 0
