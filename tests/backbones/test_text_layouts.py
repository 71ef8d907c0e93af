"""Text encoders in other layouts: parts of larger networks, positions of other names, transposed layers of GPT-2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import encoder
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    T5Config,
    T5EncoderModel,
    T5Model,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperModel,
)

from bench.api.backbone import load_tokenizer
from bench.api.peft import write_folder
from bench.api.task import TaskSpec
from bench.backbones.text_encoders import content_hash, from_folder
from bench.config.sections import HeadConfig, OptimConfig
from bench.core import registry
from bench.core.errors import EnvironmentProblem

TASK = TaskSpec(name="t", version=1, modality="text", num_classes=3, metrics=("accuracy",), primary=("accuracy",))
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
SIZES: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **SPECIAL,
}
IMAGES = {key: SIZES[key] for key in SIZES if key not in SPECIAL} | {"image_size": 32, "patch_size": 8}
CLIP = {"text_config": {**SIZES, "vocab_size": 60, "max_position_embeddings": 20}, "vision_config": IMAGES}
T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    return folder


def loaded(folder: Path) -> Any:
    return from_folder("b", folder).load(task=TASK, head=HeadConfig(pooling="mean"), seed=0).eval()


def tokens() -> dict[str, Tensor]:
    """Ids and mask (3, 7); the end of a text, id 3, comes last."""
    ids = torch.arange(21).view(3, 7) + 5
    ids[:, -1] = 3
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


PARTS: dict[str, Any] = {
    "t5": (lambda: T5Model(T5Config(**T5)), lambda model: model.get_encoder()),
    "t5, encoder": (lambda: T5EncoderModel(T5Config(**T5)), lambda model: model),
    "bart": (lambda: encoder("bart"), lambda model: model.get_encoder()),
    "clip": (lambda: CLIPModel(CLIPConfig(**CLIP)), lambda model: model.text_model),
    "gpt2": (lambda: encoder("gpt2"), lambda model: model),
}
"""Network → the part of it that reads texts."""


@pytest.mark.parametrize("name", PARTS)
@torch.no_grad()
def test_the_part_that_reads_texts_is_the_backbone_and_is_kept(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, part = PARTS[name]
    model = build().eval()
    want = part(model)(**tokens()).last_hidden_state.mean(1)
    network = loaded(saved(model, tmp_path / "given"))
    assert torch.allclose(network(**tokens()), want, rtol=0, atol=1e-6)
    for parameter in network.parameters():
        parameter.mul_(1.5)
    load_tokenizer(str(tmp_path / "given"))(["a b c"], truncation=True, max_length=4)
    network.save(tmp_path / "kept")
    tokenizer = json.loads((tmp_path / "kept" / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None, "that of the texts read last is not kept"
    again = loaded(tmp_path / "kept")
    assert torch.equal(again(**tokens()), network(**tokens()))
    assert not torch.allclose(again(**tokens()), want, rtol=0, atol=1e-3)
    if name in ("bart", "gpt2"):  # with the decoder, and with transposed layers, as transformers expects them
        theirs = part(AutoModel.from_pretrained(tmp_path / "kept").eval())
        assert torch.allclose(theirs(**tokens()).last_hidden_state.mean(1), network(**tokens()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["image", "speech"])
def test_a_network_that_reads_no_text_is_refused(kind: str, tmp_path: Path) -> None:
    """Images are said when the run is planned; speech has a vocabulary too, and is said before training."""
    sizes = {"vocab_size": 60, "d_model": 12, "encoder_layers": 1, "decoder_layers": 1, **SPECIAL}
    if kind == "image":
        with pytest.raises(EnvironmentProblem, match=r"reads images and no text(?s:.*)a vit with image_size and num"):
            from_folder("b", saved(ViTModel(ViTConfig(**IMAGES)), tmp_path))
        return
    backbone = from_folder("b", saved(WhisperModel(WhisperConfig(**sizes, decoder_start_token_id=2)), tmp_path))
    with pytest.raises(EnvironmentProblem, match=r"WhisperEncoder reads input_features and no tokens"):
        backbone.load(task=TASK, head=HeadConfig(), seed=0)


LEARNED: dict[str, Any] = {
    **{kind: {} for kind in ("bart", "bert", "esm", "gpt2", "nystromformer", "opt")},
    "clip_text_model": {"eos_token_id": 3},
    "longformer": {"attention_window": 4},
}
"""Encoders with learned positions under many names, some with rows before the first."""


@pytest.mark.parametrize("kind", LEARNED)
@torch.no_grad()
def test_the_longest_text_is_known_before_anything_is_loaded(kind: str, tmp_path: Path) -> None:
    """transformers itself is the oracle: the longest text passes, and one token more does not."""
    positions = {"max_position_embeddings": 20, "n_positions": 20, "pad_token_id": 1, "bos_token_id": 2}
    sizes = SIZES | {"vocab_size": 60, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "n_embd": 16}
    more = {"ffn_dim": 24, "word_embed_proj_dim": 16, "n_layer": 1, "n_head": 2, "encoder_attention_heads": 2}
    options = sizes | more | {"decoder_attention_heads": 2} | positions | LEARNED[kind]
    longest = from_folder("b", saved(AutoModel.from_config(AutoConfig.for_model(kind, **options)), tmp_path)).max_length
    assert longest == (18 if kind in ("esm", "longformer") else 20)
    network = loaded(tmp_path)
    network(torch.full((1, longest), 5), torch.ones(1, longest, dtype=torch.long))
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        network(torch.full((1, longest + 1), 5), torch.ones(1, longest + 1, dtype=torch.long))


def test_clip_s_longest_text_is_not_the_number_of_its_patches(tmp_path: Path) -> None:
    assert from_folder("b", saved(CLIPModel(CLIPConfig(**CLIP)), tmp_path)).max_length == 20


@pytest.mark.parametrize("target", ["qv", "attention", r"mlp\.c_fc$"])
@torch.no_grad()
def test_lora_on_gpt2_is_pefts(target: str, tmp_path: Path) -> None:
    """Its layers are Conv1D, whose weight is transposed; peft adapts them as they are, with query and value fused."""
    network = loaded(saved(encoder("gpt2"), tmp_path / "gpt2")).double()
    kind, config = registry.load("methods", "lora"), registry.load_config("methods", "lora")
    parts = {"head": HeadConfig(), "optim": OptimConfig(), "lr": 1e-3, "seed": 0}
    method = kind(network, TASK, config(target=target, rank=3), **parts).double()
    method.adapt({"inputs": tokens(), "labels": torch.arange(3), "weight": torch.tensor(1.0)})
    assert not method.warnings()
    start = network(**tokens())
    for name, parameter in method.named_parameters():
        if "factors" in name:
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    write_folder(tmp_path / "adapter", *method.peft(method.config, method.export()), {}, {})
    plain = AutoModel.from_pretrained(tmp_path / "gpt2").double()
    with pytest.warns(UserWarning, match="fan_in_fan_out is set to False but the target module is `Conv1D`"):
        theirs = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).double().eval()
    want = theirs(**tokens()).last_hidden_state.mean(1)
    assert torch.allclose(method.eval().features(tokens()), want, rtol=0, atol=1e-9)
    assert (want - start).abs().max() > 1e-3


@pytest.mark.parametrize("file", ["added_tokens.json", "special_tokens_map.json", "1_Pooling/config.json"])
def test_all_that_decides_ids_and_pooling_is_hashed(file: str, tmp_path: Path) -> None:
    folder = saved(encoder("bert"), tmp_path)
    (folder / "1_Pooling").mkdir()
    hashes = set[str]()
    for content in ({}, {"pooling_mode_cls_token": True, "mask_token": "[UNK]", "[NEW]": 60}):
        (folder / file).write_text(json.dumps(content))
        content_hash.cache_clear()
        hashes.add(from_folder("b", folder).weights_hash)
    assert len(hashes) == 2
