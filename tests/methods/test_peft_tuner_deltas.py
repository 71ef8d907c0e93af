"""ΔW of peft's tuners: from the pretrained weight, of at most the nominal rank; IA³'s layers; what counts once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from encoders import encoder
from image_reference import adapted, resnet
from peft import get_peft_model
from peft.tuners.ia3 import IA3Config
from torch import Tensor, nn
from transformers import AutoModel

from bench.core import registry
from bench.core.errors import UsageError
from methods.peft_tuner.config import TARGETS
from methods.peft_tuner.method import find_layers, network_options


@torch.no_grad()
def shake(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def rank(matrix: Tensor) -> int:
    return int(np.linalg.matrix_rank(matrix.double().numpy(), rtol=1e-5))


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "orthogonal", "gaussian"])
@torch.no_grad()
def test_a_start_that_changes_the_weight_is_measured_from_the_pretrained_one(lab: Any, start: str) -> None:
    data, method = lab.build(lab.spec("peft:lora", options={"r": 4, "init_lora_weights": start}))
    plain = AutoModel.from_pretrained(lab.backbone.path)
    before = dict(method.deltas())
    assert max(float(delta.dense().abs().max()) for delta in before.values()) < 1e-6
    shake(method.backbone)
    after = dict(method.deltas())
    assert all(rank(delta.dense()) == delta.nominal for delta in after.values())
    assert {delta.nominal for delta in after.values()} == {4 if start in ("orthogonal", "gaussian") else 8}
    for name, delta in after.items():
        plain.get_submodule(name.removeprefix("model.")).weight += delta.dense()
    inputs = data.first_batch()["inputs"]
    want = method.eval().backbone(**inputs)
    assert torch.allclose(plain.eval()(**inputs).pooler_output, want, rtol=0, atol=1e-5)


EXACT: list[tuple[str, dict[str, Any], int]] = [
    ("adamss", {"r": 12, "num_subspaces": 3, "subspace_rank": 2}, 6),
    ("beft", {}, 0),
    ("deft", {"r": 3}, 3),
    ("deft", {"r": 3, "decomposition_method": "relu"}, 3),
    ("delora", {"r": 3}, 3),
    ("gralora", {"r": 4, "gralora_k": 2, "hybrid_r": 2}, 10),
    ("hira", {"r": 2}, 32),
    ("hra", {"r": 4}, 4),
    ("hra", {"r": 4, "apply_GS": True}, 4),
    ("ia3", {}, 32),
    ("loha", {"r": 2}, 4),
    ("lokr", {"r": 2}, 8),
    ("lokr", {"r": 1, "decompose_both": True}, 1),
    ("lokr", {"r": 2, "decompose_factor": 8}, 32),
    ("lora", {}, 8),
    ("lora", {"r": 3, "use_dora": True}, 32),
    ("miss", {"r": 4}, 4),
    ("miss", {"r": 4, "init_weights": "bat"}, 32),
    ("osf", {"effective_rank": 30}, 4),
    ("peanut", {"r": 3}, 3),
    ("psoft", {"r": 3}, 3),
    ("pvera", {"r": 3}, 3),
    ("tinylora", {"r": 3}, 3),
    ("unilora", {"r": 3}, 3),
    ("vblora", {"r": 3, "vector_length": 16}, 3),
    ("vera", {"r": 3}, 3),
    ("waveft", {"n_frequency": 3}, 3),
]
BOUNDED: list[tuple[str, dict[str, Any], int]] = [
    ("fourierft", {"n_frequency": 3}, 6),
    ("miss", {"r": 4, "init_weights": "mini", "mini_r": 2}, 4),
    ("supertuning", {"r": 3}, 13),
]
"""Tuner, options, and its nominal rank, which ΔW has, or stays below."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tuner", "options", "nominal"), EXACT + BOUNDED)
def test_the_nominal_rank_is_that_of_the_tuner(lab: Any, tuner: str, options: dict[str, Any], nominal: int) -> None:
    _, method = lab.build(lab.spec(f"peft:{tuner}", options=options))
    shake(method.backbone)
    _, delta = next(method.deltas())
    assert delta.nominal == nominal
    if (tuner, options, nominal) in EXACT:
        assert rank(delta.dense()) == nominal
    assert rank(delta.dense()) <= nominal


@pytest.mark.parametrize(("tuner", "r"), [("lora", 3), ("loha", 2), ("lokr", 2), ("hra", 4)])
def test_no_convolution_exceeds_it(tuner: str, r: int) -> None:
    method = adapted(f"peft:{tuner}", resnet(), r=r)
    shake(method.backbone)
    deltas = [delta for _, delta in method.deltas()]
    assert all(rank(delta.dense()) <= delta.nominal for delta in deltas)
    assert any(delta.nominal < min(delta.shape) for delta in deltas)


@pytest.mark.parametrize(
    ("tuner", "options"),
    [
        *(("lora", {"init_lora_weights": start}) for start in ("eva", "corda", "lora_ga")),
        ("lora", {"use_qalora": True}),
        ("adamss", {"use_asa": True}),
    ],
)
def test_what_peft_would_leave_at_a_random_start_is_refused(tuner: str, options: dict[str, Any]) -> None:
    config = registry.load_config("methods", f"peft:{tuner}")
    [(name, _)] = options.items()
    with pytest.raises(UsageError, match=f"method.{name}") as caught:
        config(**options)
    assert caught.value.known and caught.value.todo


SECOND = "second"
PAPER: dict[str, list[str]] = {
    "albert": ["encoder.albert_layer_groups.0.albert_layers.0." + n for n in ("attention.key", "attention.value")],
    "bart": [],
    "bert": [f"encoder.layer.{i}.attention.self.{n}" for i in range(2) for n in ("key", "value")],
    "deberta-v2": [f"encoder.layer.{i}.attention.self.{n}_proj" for i in range(2) for n in ("key", "value")],
    "distilbert": [f"transformer.layer.{i}.attention.{n}_lin" for i in range(2) for n in "kv"],
    "gpt2": [f"h.{i}.attn.c_attn" for i in range(2)],
    "modernbert": [f"layers.{i}.attn.Wqkv" for i in range(3)],
    "mpnet": [f"encoder.layer.{i}.attention.attn.{n}" for i in range(2) for n in "kv"],
    "roberta": [f"encoder.layer.{i}.attention.self.{n}" for i in range(2) for n in ("key", "value")],
}
for _part, _attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])):
    PAPER["bart"] += [f"{_part}.layers.{i}.{a}.{n}_proj" for i in range(2) for a in _attentions for n in "kv"]
INNER = 24
"""Width of the feed-forward parts: no other layer of these encoders has inputs of it."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", PAPER)
def test_ia3_scales_keys_values_and_the_second_feed_forward_input(kind: str) -> None:
    """The layers of arXiv 2205.05638, found by their shape in encoders of transformers."""
    network = encoder(kind, **({"n_inner": INNER} if kind == "gpt2" else {}))
    names, notes = find_layers(network, TARGETS["ia3"])
    feed_forward = network_options("ia3", names, {})
    model = get_peft_model(network, IA3Config(target_modules=names, **feed_forward))
    gains = {n.partition("model.")[2]: p for n, p in model.named_parameters() if p.requires_grad}
    layers = {n.partition(".ia3_l")[0].removeprefix("model."): tuple(p.shape) for n, p in gains.items()}
    inputs = {n for n, shape in layers.items() if shape == (1, INNER)}
    blocks = 1 if kind == "albert" else 3 if kind == "modernbert" else 4 if kind == "bart" else 2
    assert len(inputs) == blocks
    assert {*layers} - inputs == {*PAPER[kind]}
    assert bool(notes) == (kind in ("gpt2", "modernbert"))


FOUND: dict[str, tuple[set[str], str]] = {
    "PVTv2": ({"attn.kv", "mlp.fc2"}, ""),  # its keys and values are one layer
    "GCViT": ({"attn.qkv", "mlp.fc2"}, "one layer in this network, adapted whole: 5"),  # and not `se.fc2`
    "ConViT": ({"attn.v", "mlp.fc2"}, "does not find all that it scales in this network: 0 key, 2 value projections"),
}
"""Architecture → the ends of the names of IA³'s layers by default, and what the record says of them."""


@pytest.mark.parametrize("name", FOUND)
def test_ia3_in_networks_of_images(name: str) -> None:
    names, notes = find_layers(ARCHITECTURES[name].network(), TARGETS["ia3"])
    ends, note = FOUND[name]
    assert {".".join(one.split(".")[-2:]) for one in names} == ends
    assert len(notes) == bool(note) and all(note in text for text in notes)


def test_layer_norms_count_once(lab: Any) -> None:
    _, method = lab.build(lab.spec("peft:ln_tuning"))
    _, plain = lab.build(lab.spec("full"))
    norms = sum(p.numel() for n, p in plain.backbone.named_parameters() if "LayerNorm" in n)
    counts, wanted = method.parameter_counts(), plain.parameter_counts()
    assert counts == {**wanted, "trainable": norms + wanted["head"]}
