"""Backbones: what they pool and refuse, and that `qv` finds query and value whatever they are called."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bench.api.lowrank.targets import find_targets
from bench.api.task import TaskSpec
from bench.backbones import open_backbone
from bench.backbones.text_encoders import MINILM_SHA256, BERTConfig, content_hash, from_folder
from bench.config.sections import BackboneConfig, HeadConfig
from bench.core.errors import EnvironmentProblem, UsageError

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
NORM = "encoder.layer.1.output.LayerNorm.weight"


def saved(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**ARCHITECTURES[name])
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    return folder


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    content_hash.cache_clear()


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


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (lambda w: {f"net.{key}": t for key, t in w.items()}, r"lacks 39 of 39 tensors of its network: embeddings"),
        (lambda w: {k: t for k, t in w.items() if k != NORM}, rf"lacks 1 of 39 tensors of its network: {NORM}$"),
        (lambda w: {**w, NORM: torch.ones(9)}, rf"{NORM} is 9 in the weights and 16 by config.json"),
    ],
    ids=["renamed", "missing", "another shape"],
)
def test_weights_that_do_not_fit_are_refused(change, known, tmp_path):
    folder = saved("Bert", tmp_path)
    change_weights(folder, change)
    with pytest.raises(EnvironmentProblem, match=r"weights of backbone 'b' do not fit") as caught:
        from_folder("b", folder).load(task=CLASSES, head=HeadConfig(), seed=0)
    assert re.search(known, caught.value.known)


def test_a_missing_pooler_is_refused_only_where_it_is_used(tmp_path):
    folder = saved("Bert", tmp_path)
    change_weights(folder, lambda w: {k: t for k, t in w.items() if "pooler" not in k})
    backbone = from_folder("b", folder)
    backbone.load(task=CLASSES, head=HeadConfig(), seed=0)
    with pytest.raises(EnvironmentProblem, match=r"lacks 2 of 39 tensors of its network: pooler\.dense\.bias"):
        backbone.load(task=CLASSES, head=HeadConfig(pooling="pooler"), seed=0)


def test_weights_with_a_head_of_their_own_are_taken(tmp_path):
    folder = saved("Bert", tmp_path)
    change_weights(folder, lambda w: {**w, "cls.predictions.bias": torch.zeros(50)})
    from_folder("b", folder).load(task=CLASSES, head=HeadConfig(), seed=0)


@pytest.mark.parametrize("left", [(), ("tokenizer_config.json",), ("vocab.json",), ("merges.txt",)])
def test_a_folder_without_a_vocabulary_is_refused(left, tmp_path):
    """transformers 5 would make a tokenizer of five special tokens."""
    folder = saved("Bert", tmp_path)
    (folder / "vocab.txt").unlink()
    for name in left:
        (folder / name).write_text("{}")
    with pytest.raises(EnvironmentProblem, match=r"backbone 'b' has no tokenizer(?s:.*)tokenizer\.json, vocab\.txt"):
        from_folder("b", folder)


@pytest.mark.parametrize(
    ("file", "stated", "ids"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"}, [100, 101, 1]),
        ("config.json", {"model_type": "canine"}, [0xE000, 97, 98, 0xE001]),
    ],
)
def test_tokenizers_without_files_need_none(file, stated, ids, tmp_path):
    """ByT5 takes bytes + 3 and an end, CANINE code points between two private ones."""
    folder = saved("Bert", tmp_path)
    (folder / "vocab.txt").unlink()
    (folder / file).write_text(json.dumps(stated))
    assert from_folder("b", folder).tokenizer()("ab").input_ids == ids


AUTO = {"auto_map": {"AutoModel": "code.Own"}}


@pytest.mark.parametrize(
    ("file", "entry", "text"),
    [
        ("config.json", AUTO, "needs code that comes with it"),
        ("config.json", {"text_config": {"inner": [AUTO]}}, "needs code that comes with it"),
        ("config.json", {"attn_implementation": "owner/kernel"}, "needs code that comes with it"),
        ("tokenizer_config.json", {"auto_map": ["code.Own", None]}, "needs code that comes with it"),
        ("config.json", {"transformers_weights": "below/model.safetensors"}, "names other weights"),
        ("adapter_config.json", {"peft_type": "LORA"}, "holds an adapter of peft"),
    ],
)
def test_what_would_run_code_or_load_other_files_is_refused(file, entry, text, tmp_path):
    folder = saved("Bert", tmp_path)
    stated = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({**stated, **entry}))
    (folder / "code.py").write_text("raise SystemExit('the code was run')")
    with pytest.raises(EnvironmentProblem, match=text) as caught:
        from_folder("b", folder)
    assert file in caught.value.known and caught.value.todo
    with contextlib.nullcontext() if "adapter" in file else pytest.raises(EnvironmentProblem, match=text):
        open_backbone("bert", BERTConfig(tokenizer=str(folder)))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt", "special_tokens_map.json"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_only_regular_files_are_read(name, kind, tmp_path):
    """A pipe nobody writes to, and /dev/zero, have no end."""
    folder = saved("Bert", tmp_path)
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    for find in (
        lambda: from_folder("b", folder),
        lambda: open_backbone("bert", BERTConfig(tokenizer=str(folder))),
    ):
        with pytest.raises(EnvironmentProblem, match=rf"{re.escape(name)} is not a regular file") as caught:
            find()
        assert caught.value.todo


def test_a_link_to_nowhere_is_a_missing_file(tmp_path):
    folder = saved("Bert", tmp_path)
    (folder / "merges.txt").symlink_to(tmp_path / "nowhere")
    assert from_folder("b", folder).parameters
    (folder / "vocab.txt").unlink()
    (folder / "vocab.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(EnvironmentProblem, match="has no tokenizer"):
        from_folder("b", folder)


@pytest.mark.parametrize("load", ["model", "tokenizer"])
def test_transformers_never_asks_whether_to_run_code(load, tmp_path, monkeypatch):
    """Not even if the code came into the folder after the plan."""
    folder = saved("Bert", tmp_path)
    backbone = from_folder("b", folder)
    auto = {"AutoConfig": "code.Config", "AutoModel": "code.Own", "AutoTokenizer": ["code.Own", None]}
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({"model_type": "own", "tokenizer_class": "Own", "auto_map": auto}))
    (folder / "code.py").write_text("raise SystemExit('the code was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises((EnvironmentProblem, ValueError), match=r"custom code"):
        backbone.load(task=CLASSES, head=HeadConfig(), seed=0) if load == "model" else backbone.tokenizer()


def sharded(folder: Path, names: dict[str, str] | None = None) -> Path:
    """Two shards of all weights; `names` replaces names of files in the index."""
    saved("Bert", folder)
    weights, map_ = load_file(folder / "model.safetensors"), {}
    (folder / "model.safetensors").unlink()
    for index, keys in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        file = f"model-{index}.safetensors"
        save_file({key: weights[key] for key in keys}, folder / file, metadata={"format": "pt"})
        map_.update(dict.fromkeys(keys, (names or {}).get(file, file)))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": map_}))
    return folder


def test_shards_are_loaded_and_hashed(tmp_path):
    whole, parts = from_folder("b", saved("Bert", tmp_path / "whole")), from_folder("b", sharded(tmp_path / "parts"))
    states = [backbone.load(task=CLASSES, head=HeadConfig(), seed=0).state_dict() for backbone in (whole, parts)]
    assert all(torch.equal(states[0][key], tensor) for key, tensor in states[1].items())
    assert whole.parameters == parts.parameters
    weights = load_file(tmp_path / "parts" / "model-1.safetensors")
    save_file({key: t + 1 for key, t in weights.items()}, tmp_path / "parts" / "model-1.safetensors")
    content_hash.cache_clear()
    assert from_folder("b", tmp_path / "parts").weights_hash != parts.weights_hash


@pytest.mark.parametrize("other", ["../elsewhere.safetensors", "below/x.safetensors", "x.bin", "absent.safetensors"])
def test_an_index_names_files_of_its_folder_alone(other, tmp_path):
    folder = sharded(tmp_path / "model", {"model-1.safetensors": other})
    if other != "absent.safetensors":
        (folder / other).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "model-1.safetensors", folder / other)
    with pytest.raises(EnvironmentProblem, match=rf"names files that cannot be read(?s:.*){re.escape(other)}"):
        from_folder("b", folder)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}', "{"])
def test_a_broken_index_is_named(index, tmp_path):
    folder = sharded(tmp_path)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(EnvironmentProblem, match=r"index\.json is not"):
        from_folder("b", folder)


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
    (tmp_path / "vocab.txt").write_text("[UNK]\n")
    longest = from_folder("it", tmp_path).max_length
    assert longest == (16 if kind in ("Roberta", "MPNet") else 18)
    network(torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        network(torch.full((1, longest + 1), 5))
