"""Weights for `timm:NAME`: from the hub, a folder or a file; what of them is used, and what is refused."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed

from bench.api.backbone import Backbone
from bench.api.task import TaskSpec
from bench.backbones.image_networks import Timm, TimmConfig
from bench.backbones.text_encoders import content_hash
from bench.config.sections import HeadConfig
from bench.core import hub
from bench.core.errors import EnvironmentProblem

NAME = "test_vit"  # 0.37 M parameters, patches of 16, made for 160×160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What timm's repository of the network would hold."""
    torch.manual_seed(0)
    model = timm.create_model(NAME)
    folder = tmp_path_factory.mktemp("hub")
    save_file({key: t.contiguous() for key, t in model.state_dict().items()}, folder / "model.safetensors")
    known = timm.get_pretrained_cfg(NAME)
    assert known is not None
    settings = {"input_size": [3, 160, 160], "first_conv": known.first_conv, "classifier": known.classifier}
    config = {"architecture": NAME, "num_classes": 1000, "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def found(name: str = NAME, **options: Any) -> Backbone:
    return Timm().open(f"timm:{name}", Timm.Config(**options))


def loaded(backbone: Backbone, shape: tuple[int, int, int] = (3, 160, 160)) -> Any:
    task = TaskSpec(name="t", version=1, modality="image", num_classes=2, metrics=(), primary=(), shape=shape)
    return backbone.load(task=task, head=HeadConfig(), seed=0).eval()


@pytest.mark.parametrize("part", ["", "model.safetensors"], ids=["folder", "file"])
def test_features_are_those_of_the_weights(folder, part):
    backbone = found(weights=str(folder / part))
    theirs = timm.create_model(NAME).eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    x = torch.randn(2, 3, 160, 160)
    assert torch.equal(loaded(backbone)(x), theirs.forward_head(theirs.forward_features(x), pre_logits=True))
    assert backbone.pretrained
    assert backbone.parameters == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("part", ["", "model.safetensors"], ids=["folder", "file"])
def test_positions_are_resampled_and_channels_summed_for_other_images(folder, part):
    model = loaded(found(weights=str(folder / part)), (1, 32, 64)).model
    weights = load_file(folder / "model.safetensors")
    expected = resample_abs_pos_embed(weights["pos_embed"], (2, 4), num_prefix_tokens=model.num_prefix_tokens)
    torch.testing.assert_close(model.pos_embed.data, expected)
    stem = weights["patch_embed.proj.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(model.patch_embed.proj.weight.data, stem)


def test_the_bytes_decide_the_identity_and_not_where_they_lie(folder, tmp_path):
    first = found(weights=str(folder))
    shutil.copytree(folder, tmp_path / "b")
    again = found(weights=str(tmp_path / "b"))
    assert (again.weights_hash, again.config) == (first.weights_hash, first.config)
    weights = load_file(folder / "model.safetensors")
    weights["cls_token"] = weights["cls_token"] + 1
    save_file(weights, tmp_path / "b" / "model.safetensors")
    content_hash.cache_clear()
    assert found(weights=str(tmp_path / "b")).weights_hash != first.weights_hash
    random = found()
    assert random.weights_hash != first.weights_hash and not random.pretrained and random.path is None


def test_weights_of_another_network_are_refused(folder, tmp_path):
    with pytest.raises(EnvironmentProblem, match=f"architecture '{NAME}'"):
        found("test_vit2", weights=str(folder))
    with pytest.raises(EnvironmentProblem, match=r"not those of timm's test_vit2"):
        loaded(found("test_vit2", weights=str(folder / "model.safetensors")))
    weights = load_file(folder / "model.safetensors")
    part = {key: t for key, t in weights.items() if not key.startswith("blocks.1.")}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(EnvironmentProblem, match=r"blocks\.1\.attn\.qkv\.weight"):
        loaded(found(weights=str(tmp_path / "part.safetensors")))


@pytest.mark.parametrize(
    ("name", "gone"),
    [(NAME, "norm.weight"), (NAME, "blocks.0.attn.qkv.bias"), ("resnet10t", "layer1.0.bn1.running_mean")],
)
def test_constants_that_the_weights_do_not_hold_are_refused(name, gone, tmp_path):
    weights = timm.create_model(name).state_dict()
    file = tmp_path / "part.safetensors"
    save_file({key: t for key, t in weights.items() if not key.endswith("num_batches_tracked")}, file)
    loaded(found(name, weights=str(file)))
    save_file({key: t for key, t in weights.items() if key != gone}, file)
    with pytest.raises(EnvironmentProblem, match=rf"it has no tensor for {gone}\n"):
        loaded(found(name, weights=str(file)))


def test_weights_with_the_names_of_the_authors_are_taken(tmp_path):
    """timm renames them, so which ones are missing cannot be told by their names."""
    names = (
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
        (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc", ".pwconv"),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )
    weights = timm.create_model("test_convnext").state_dict()
    theirs = {functools.reduce(lambda key, pair: re.sub(*pair, key), names, key): t for key, t in weights.items()}
    save_file(theirs, tmp_path / "theirs.safetensors")
    model = loaded(found("test_convnext", weights=str(tmp_path / "theirs.safetensors"))).model
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())


def test_what_is_not_there_is_named(folder, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"pickle")
    for path, text in (
        (tmp_path, "no config.json and no model.safetensors"),
        (tmp_path / "model.bin", "not a folder and not a .safetensors file"),
        (tmp_path / "nowhere", "not a folder and not a .safetensors file"),
    ):
        with pytest.raises(EnvironmentProblem, match=text) as caught:
            found(weights=str(path))
        assert caught.value.todo
    (tmp_path / "bad.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(EnvironmentProblem, match=r"bad\.safetensors is not a safetensors file"):
        found(weights=str(tmp_path / "bad.safetensors"))
    shutil.copy(folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EnvironmentProblem, match=r"config\.json is not JSON"):
        found(weights=str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_only_regular_files_are_read(name, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "pipe")
    file = tmp_path / "pipe" / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    if name == "vocab.txt":
        assert found(weights=str(file.parent)).weights_hash == found(weights=str(folder)).weights_hash
        return
    for path in (file.parent, file):
        with pytest.raises(EnvironmentProblem, match=r"there are no weights"):
            found(weights=str(path))


def test_pickled_weights_beside_are_never_read(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "both")
    (tmp_path / "both" / "pytorch_model.bin").write_bytes(b"pickle")
    loaded(found(weights=str(tmp_path / "both")))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub.connection_error.cache_clear()


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_hub_is_named(monkeypatch):
    with pytest.raises(
        EnvironmentProblem, match=r"timm/test_vit\.r160_in1k: it is not in .* HF_HUB_OFFLINE is set"
    ) as caught:
        found(pretrained=True)
    assert "backbone.weights" in caught.value.todo
    with pytest.raises(EnvironmentProblem, match="timm names no repository"):
        found("vit_small_patch16_36x1_224", pretrained=True)


@pytest.mark.usefixtures("offline")
def test_the_hub_s_cache_is_enough(folder, tmp_path):
    """The layout that huggingface_hub itself keeps its files in."""
    commit, repository = "0" * 40, tmp_path / "cache" / "models--timm--test_vit.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    shutil.copy(folder / "model.safetensors", repository / "snapshots" / commit)
    backbone = found(pretrained=True)
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(loaded(backbone).model.cls_token.data, weights["cls_token"])
    assert backbone.config_as(TimmConfig).pretrained and backbone.path is not None
