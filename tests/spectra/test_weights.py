"""Spectra of files: held against numpy on the whole matrix."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.core.errors import EnvironmentProblem, UsageError
from bench.spectra import power_law_alpha
from bench.spectra.files import layer_metrics, weights
from bench.spectra.files.panels import block, over_depth
from bench.spectra.layers import KERNEL

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(matrix: Tensor) -> dict[str, float]:
    """The metrics by numpy, on the dense float64 matrix."""
    sigma = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    if sigma[0] == 0:
        return dict.fromkeys(("stable", "effective", "energy90", "participation", "norm", "numerical"), 0)
    p, s2 = sigma / sigma.sum(), sigma**2
    eps = torch.finfo(matrix.dtype).eps
    return {
        "stable": s2.sum() / s2[0],
        "effective": float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum())),
        "energy90": int((np.cumsum(s2) / s2.sum() < 0.9).sum() + 1),
        "participation": s2.sum() ** 2 / (s2**2).sum(),
        "norm": sigma[0],
        "numerical": int((sigma > sigma[0] * max(matrix.shape) * eps).sum()),
    }


def rows(file: Path, *, every: bool = False) -> dict[str, layer_metrics.LayerMetrics]:
    found = weights.contents([file])
    return {row.layer: row for row in layer_metrics.measure_matrices(found.matrices, every=every)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (33, 33), (1, 40), (40, 1), (16, 3, 3, 3), (4, 8, 3, 3)])
def test_metrics_equal_numpy(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BLOCK", 70)  # several blocks, the last of them shorter
    weight = drawn(*shape).to(dtype)
    save_file({"w": weight}, tmp_path / "a.safetensors")
    matrix = weight.flatten(1)
    expected = oracle(matrix)
    for every in (False, True):
        row = rows(tmp_path / "a.safetensors", every=every)["w"]
        assert row.shape == tuple(matrix.shape)
        assert row.how == ("svd" if dtype == torch.float64 or every else "gram")
        assert ("numerical" in row.numbers) == every
        for name, value in expected.items():
            if name in row.numbers:
                assert row.numbers[name] == pytest.approx(value, rel=1e-9), name
        alpha = float(power_law_alpha(matrix)) if every else 0.0
        assert row.numbers.get("alpha", 0.0) == pytest.approx(alpha, rel=1e-6)


def test_adversarial_matrices_equal_numpy(tmp_path: Path) -> None:
    thin = (drawn(50, 3) @ drawn(3, 40, seed=1)).float()
    spread = (torch.linalg.qr(drawn(30, 30)).Q * torch.logspace(0, -12, 30, dtype=torch.float64)).contiguous()
    given = {
        "thin": thin,
        "spread": spread,
        "zero": torch.zeros(5, 9),
        "one": torch.ones(7, 7),
        "scalar": torch.ones(1, 1),
    }
    save_file(given, tmp_path / "a.safetensors")
    for every in (False, True):
        found = rows(tmp_path / "a.safetensors", every=every)
        assert found["thin"].how == "svd", "its Gram matrix would drown 37 singular values"
        for layer, matrix in given.items():
            for name, value in oracle(matrix).items():
                if name in found[layer].numbers:
                    assert found[layer].numbers[name] == pytest.approx(value, rel=1e-9, abs=1e-12), (layer, name)


def test_vectors_whole_numbers_and_empty_tensors_are_counted(tmp_path: Path) -> None:
    given = {
        "w": torch.ones(2, 2),
        "b": torch.ones(2),
        "s": torch.tensor(1.0),
        "ids": torch.zeros(1, 5, dtype=torch.int64),
        "e": torch.ones(0, 3),
    }
    save_file(given, tmp_path / "a.safetensors")
    found = weights.contents([tmp_path / "a.safetensors"])
    assert [m.name for m in found.matrices] == ["w"]
    assert found.left_out == {"of one dimension": 2, "of type I64": 1, "empty": 1}


@pytest.mark.parametrize("shape", [(5, 30, 12), (5, 12, 30), (4, 64, 32)])
@pytest.mark.parametrize("name", ["mlp.experts.gate_up_proj", "blocks.0.weight"])
def test_a_stack_is_one_matrix_for_each_expert(
    name: str, shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BLOCK", 70)
    stack, before = drawn(*shape), drawn(*shape, seed=1)
    if name == "blocks.0.weight" and shape[2] <= KERNEL:
        stack, before = stack.mT.contiguous(), before.mT.contiguous()
    for file, tensor in (("a", stack), ("b", before)):
        save_file({name: tensor}, tmp_path / f"{file}.safetensors")
    found = rows(tmp_path / "a.safetensors")
    assert list(found) == [f"{name}[{i}]" for i in range(len(stack))]
    for i, row in enumerate(found.values()):
        assert row.shape == tuple(stack.shape[1:])
        for number, value in oracle(stack[i]).items():
            if number in row.numbers:
                assert row.numbers[number] == pytest.approx(value, rel=1e-9)
    tuned, base = (weights.contents([tmp_path / f"{file}.safetensors"]).matrices for file in "ab")
    changes = [replace(after, base=start) for after, start in zip(tuned, base, strict=True)]
    for i, row in enumerate(layer_metrics.measure_matrices(changes)):
        assert row.numbers["norm"] == pytest.approx(np.linalg.norm((stack - before)[i].numpy(), 2), rel=1e-9)


def test_what_is_no_linear_map_is_listed(tmp_path: Path) -> None:
    maps = {
        "patch_embed.proj.weight": (8, 3, 4, 4),
        "conv1d.weight": (32, 32, 32),
        "pos_conv_embed.conv.weight": (8, 2, 128),
        "layer.query.weight": (16, 16, 1),
        "stem.0.weight": (1, 8, 3, 3),
        "experts.down": (1, 6, 8),
        "embeddings.position_embeddings.weight": (50, 8),
        "classifier.weight": (1, 8),
    }
    others = {
        "pos_embed": (1, 50, 32),
        "cls_token": (1, 1, 32),
        "absolute_pos_embed": (50, 1, 32),
        "rel_pos_bias": (4, 49, 49),
        "gamma": (32, 1, 1),
        "norm.scale": (1, 32, 1, 1),
    }
    save_file({name: torch.ones(shape) for name, shape in (maps | others).items()}, tmp_path / "a.safetensors")
    found = weights.contents([tmp_path / "a.safetensors"])
    listed = {line.partition(" ")[0]: line for line in found.listed}
    assert {m.name: m.shape for m in found.matrices if m.name != "stem.0.weight"} == {
        "patch_embed.proj.weight": (8, 48),
        "conv1d.weight": (32, 1024),
        "pos_conv_embed.conv.weight": (8, 256),
        "layer.query.weight": (16, 16),
        "experts.down[0]": (6, 8),
        "embeddings.position_embeddings.weight": (50, 8),
        "classifier.weight": (1, 8),
    }
    assert {*listed} == {*others, "stem.0.weight"}, "a single output channel is a vector"
    assert listed["pos_embed"] == "pos_embed (1×50×32)"
    assert found.left_out == {"of positions, tokens or scales": 7}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_bad_number_takes_one_layer(bad: float, dtype: torch.dtype, tmp_path: Path) -> None:
    broken = drawn(30, 4).to(dtype)
    broken[29, 3] = bad
    save_file({"a": drawn(6, 4).float(), "b": broken, "c": drawn(6, 4).float()}, tmp_path / "a.safetensors")
    found = rows(tmp_path / "a.safetensors")
    assert [bool(row.error) for row in found.values()] == [False, True, False]
    assert "NaN" in found["b"].error
    assert found["b"].numbers == {}


def test_difference_is_taken_in_float64(tmp_path: Path) -> None:
    base = drawn(40, 30).float()
    tuned = base + 1e-3 * (drawn(40, 2, seed=1) @ drawn(2, 30, seed=2)).float()
    for name, weight in (("base", base), ("tuned", tuned)):
        save_file({"w": weight}, tmp_path / f"{name}.safetensors")
    one, other = (weights.contents([tmp_path / f"{n}.safetensors"]).matrices[0] for n in ("tuned", "base"))
    (row,) = layer_metrics.measure_matrices([replace(one, base=other)])
    expected = oracle(tuned.double() - base.double())
    assert row.numbers["norm"] == pytest.approx(expected["norm"], rel=1e-9)
    assert row.numbers["stable"] == pytest.approx(expected["stable"], rel=1e-6)
    assert row.numbers["energy90"] == expected["energy90"] <= 2


def test_order_is_the_network_s() -> None:
    names = [
        "head.weight",
        "blocks.10.w",
        "blocks.2.w",
        "embeddings.word.weight",
        "pooler.dense.weight",
        "conv1.weight",
    ]
    ordered = sorted(names, key=weights.network_order)
    assert ordered[0] == "embeddings.word.weight"
    assert ordered.index("blocks.2.w") < ordered.index("blocks.10.w")
    assert set(ordered[-2:]) == {"head.weight", "pooler.dense.weight"}


MEASURE = """
import json, pathlib, sys
from bench.cli.spectra.weights import measure_weights
def status(field):
    return int(next(l for l in open('/proc/self/status') if l.startswith(field)).split()[1]) * 1024
measure_weights(sys.argv[1], None, 'main', every=False)  # what is imported on the way is no layer's
pathlib.Path('/proc/self/clear_refs').write_text('5')
before = status('VmRSS')
found = measure_weights(sys.argv[2], None, 'main', every=False)
print(json.dumps([status('VmHWM') - before, len(found.rows)]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_a_model_of_90_mb_takes_less_than_twice_its_largest_layer(tmp_path: Path) -> None:
    weights = {"embeddings.word.weight": torch.ones(30_522, 384)}
    for i in range(6):
        weights |= {f"layer.{i}.{part}.weight": torch.ones(384, 384) for part in ("q", "k", "v", "o")}
        weights |= {f"layer.{i}.up.weight": torch.ones(1536, 384), f"layer.{i}.down.weight": torch.ones(384, 1536)}
    largest = max(w.numel() * w.element_size() for w in weights.values())
    save_file(weights, tmp_path / "big.safetensors")
    assert (tmp_path / "big.safetensors").stat().st_size > 89e6
    save_file({"w": torch.ones(4, 4)}, tmp_path / "small.safetensors")
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / f"{name}.safetensors") for name in ("small", "big"))]
    peaks: list[int] = []
    while not peaks or (peaks[-1] >= largest and len(peaks) < 3):  # the allocator keeps up to 20 MB more at times
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown, count = json.loads(done.stdout)
        assert count == 37
        peaks.append(grown)
    assert min(peaks) < largest, "a layer is read in blocks, and its Gram matrix is small"


def test_shards_are_one_model(tmp_path: Path) -> None:
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, name in enumerate(names):
        save_file({f"layer.{i}.weight": drawn(4, 4).float()}, tmp_path / name)
    save_file({"other": drawn(4, 4).float()}, tmp_path / "optimizer.safetensors")
    index = {"weight_map": {f"layer.{i}.weight": name for i, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = weights.contents(weights.weight_files(tmp_path))
    assert [m.name for m in found.matrices] == ["layer.0.weight", "layer.1.weight"]


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "missing.safetensors", 3])
def test_an_index_names_files_beside_it_only(name: Any, tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 2)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(EnvironmentProblem, match="index"):
        weights.weight_files(folder)


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04evil")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(UsageError, match="pickled"):
            weights.weight_files(path)


def test_a_file_that_is_none_and_a_folder_without_any(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not at all")
    with pytest.raises(EnvironmentProblem, match="not a safetensors file"):
        weights.contents(weights.weight_files(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnvironmentProblem, match="no safetensors file"):
        weights.weight_files(tmp_path / "empty")


def test_one_name_in_two_files(tmp_path: Path) -> None:
    for name in "ab":
        save_file({"w": torch.ones(2, 2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(EnvironmentProblem, match="two files"):
        weights.contents(weights.weight_files(tmp_path))


def test_a_hub_id_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    snapshot = tmp_path / "models--someone--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--someone--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    with pytest.raises(EnvironmentProblem, match="not there") as caught:
        weights.find_model("someone/model")
    assert "HF_HUB_OFFLINE" in caught.value.known
    save_file({"w": torch.ones(2, 2)}, snapshot / "model.safetensors")
    assert weights.find_model("someone/model") == snapshot
    with pytest.raises(EnvironmentProblem, match="not there"):
        weights.find_model("someone/other")
    with pytest.raises(EnvironmentProblem, match="no file or folder"):
        weights.find_model("some/path/that/is/none")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("encoder.layer.3.attention.self.query.weight", (3, "attention.self.query")),
        ("model.blocks.10.attn.qkv", (10, "attn.qkv")),
        ("h.0.mlp.c_fc.weight", (0, "mlp.c_fc")),
        ("features.3.weight", (3, "features")),
        ("decoder.block.2.layer.0.q.weight", (2, "decoder layer.0.q")),
        ("head.weight", None),
        ("conv1.weight", None),
    ],
)
def test_block_of_a_layer(layer: str, expected: tuple[int, str] | None) -> None:
    assert block(layer) == expected


def test_depth_is_by_kind_where_blocks_repeat() -> None:
    made = [
        layer_metrics.LayerMetrics(
            layer=f"h.{i}.{kind}.weight", shape=(4, 4), nominal=4, how="gram", numbers={"effective": i + 0.5}
        )
        for i in range(3)
        for kind in ("q", "v")
    ]
    broken = layer_metrics.LayerMetrics(layer="h.9.q.weight", shape=(4, 4), nominal=4, how="gram", error="NaN")
    (panel,) = over_depth([*made, broken], "W", {"effective": "effective rank"})
    content: Any = panel.content
    assert [(s.name, s.x, s.y) for s in content] == [(kind, [0, 1, 2], [0.5, 1.5, 2.5]) for kind in ("q", "v")]
    flat = [
        layer_metrics.LayerMetrics(layer=f"l{i}", shape=(4, 4), nominal=4, how="gram", numbers={"effective": 1.0})
        for i in range(3)
    ]
    (panel,) = over_depth(flat, "W", {"effective": "effective rank"})
    content = panel.content
    assert [s.x for s in content] == [["l0", "l1", "l2"]]
