"""Backbones: what they pool and refuse, and that `qv` finds query and value whatever they are called."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bench.api.task import TaskSpec
from bench.backbones import open_backbone
from bench.backbones.text_encoders import MINILM_SHA256, content_hash, from_folder
from bench.config.sections import BackboneConfig, HeadConfig
from bench.core.errors import EnvironmentProblem, UsageError
from methods.common.targets import find_targets

CLASSES = TaskSpec(name="t", version=1, modality="text", num_classes=2, metrics=("accuracy",), primary=("accuracy",))
SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Bert": SMALL,
    "Roberta": SMALL,
    "Electra": {**SMALL, "embedding_size": 16},
    "MPNet": SMALL,
    "DistilBert": {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "DebertaV2": SMALL,
}


def saved(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**ARCHITECTURES[name])
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    return folder


def mean_encoder(folder: Path, dropout: float = 0.0) -> Any:
    backbone = from_folder("b", saved("Bert", folder), BackboneConfig(dropout=dropout))
    return backbone.load(task=CLASSES, head=HeadConfig(pooling="mean"), seed=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_loads_and_has_query_and_value(name, tmp_path):
    backbone = from_folder(name, saved(name, tmp_path))
    encoder = backbone.load(task=CLASSES, head=HeadConfig(), seed=0).eval()
    ids = torch.randint(1, 50, (3, 7))
    assert encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).shape == (3, encoder.width)
    assert len(find_targets(encoder, "qv").layers) == 2 * 2
    assert {"pooler"}.isdisjoint(part for n, _ in find_targets(encoder, "all-linear").layers for part in n.split("."))
    assert len(find_targets(encoder, "attention").layers) == 2 * 4
    weights = [load_file(file) for file in tmp_path.glob("*.safetensors")]
    assert backbone.parameters == sum(t.numel() for part in weights for t in part.values())


def test_mean_pooling_leaves_padding_out(tmp_path):
    encoder = mean_encoder(tmp_path).eval()
    ids = torch.randint(1, 50, (1, 6))
    padded = torch.cat([ids, torch.zeros(1, 3, dtype=torch.int64)], 1)
    mask = torch.cat([torch.ones(1, 6), torch.zeros(1, 3)], 1).long()
    tokens = encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(encoder(padded, mask), tokens.mean(1), atol=1e-6, rtol=1e-5)


def test_pooling_follows_what_the_weights_were_trained_with(tmp_path):
    folder = saved("Bert", tmp_path)
    assert from_folder("b", folder).pooling == "pooler"
    bare = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    assert from_folder("b", folder).pooling == "mean"
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert from_folder("b", folder).pooling == "cls"


def test_pooling_of_the_user_wins(tmp_path):
    backbone = from_folder("b", saved("Bert", tmp_path))
    encoder = backbone.load(task=CLASSES, head=HeadConfig(pooling="cls"), seed=0).eval()
    ids = torch.randint(1, 50, (2, 5))
    first = encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(ids, torch.ones_like(ids)), first)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dropout_is_what_was_asked(rate, tmp_path):
    encoder = mean_encoder(tmp_path, rate).train()
    ids = torch.randint(1, 50, (2, 5))
    same = torch.equal(encoder(ids, torch.ones_like(ids)), encoder(ids, torch.ones_like(ids)))
    assert same == (rate == 0.0)


def test_the_hash_is_of_the_bytes_not_of_the_path(tmp_path):
    first = from_folder("a", saved("Bert", tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert from_folder("b", tmp_path / "b").weights_hash == first.weights_hash
    weights = load_file(tmp_path / "b" / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})
    content_hash.cache_clear()
    assert from_folder("b", tmp_path / "b").weights_hash != first.weights_hash


def test_minilm_is_the_published_one():
    backbone = open_backbone("minilm")
    assert hashlib.sha256((backbone.path / "model.safetensors").read_bytes()).hexdigest() == MINILM_SHA256
    assert (backbone.pooling, backbone.parameters) == ("mean", 22_713_728)


def test_minilm_with_other_bytes_is_refused(monkeypatch):
    monkeypatch.setattr("bench.backbones.text_encoders.MINILM_SHA256", "0" * 64)
    with pytest.raises(EnvironmentProblem, match="not the published ones"):
        open_backbone("minilm")


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("minlm", UsageError, "Did you mean 'minilm'"),
        ("./nowhere", EnvironmentProblem, "no backbone directory"),
        ("nobody/nothing", EnvironmentProblem, "HF_HUB_OFFLINE is set"),
        ("a b/c d", EnvironmentProblem, "is not there"),
    ],
)
def test_a_backbone_that_is_not_there(name, kind, text, monkeypatch, tmp_path):
    from bench.core import hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.connection_error.cache_clear()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=text) as caught:
        open_backbone(name)
    assert caught.value.todo
    hub.connection_error.cache_clear()


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(EnvironmentProblem, match="no safetensors weights"):
        from_folder("b", tmp_path)


def test_broken_weights_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(EnvironmentProblem, match=r"model\.safetensors is not a safetensors file"):
        from_folder("b", tmp_path)


def test_a_target_that_matches_nothing_lists_the_layers(tmp_path):
    encoder = mean_encoder(tmp_path)
    with pytest.raises(UsageError, match=r"encoder\.layer\.#\.attention\.self\.query"):
        find_targets(encoder, "Wqkv")
    with pytest.raises(UsageError, match="not a regular expression"):
        find_targets(encoder, "(")


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert", "MPNet"])
def test_max_length_is_what_the_network_reads(kind: str, tmp_path: Path) -> None:
    """transformers itself is the oracle: the longest text passes, and one token more does not."""
    config = getattr(transformers, f"{kind}Config")(max_position_embeddings=18, **ARCHITECTURES[kind])
    network = getattr(transformers, f"{kind}Model")(config)
    network.save_pretrained(tmp_path)
    longest = from_folder("it", tmp_path).max_length
    assert longest == (16 if kind in ("Roberta", "MPNet") else 18)
    network(torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        network(torch.full((1, longest + 1), 5))
