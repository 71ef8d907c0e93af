"""Architectures of transformers and timm, built small, and what is asked of every method on each of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
import transformers
from timm.models import crossvit, efficientformer, focalnet, gcvit, metaformer, mlp_mixer, mvitv2, nest, volo
from torch import Tensor, nn

from bench.api.lowrank.fused import split_fused
from bench.api.method import Method
from bench.api.task import TaskSpec
from bench.backbones.text_network import TextEncoder
from bench.backbones.timm_network import TimmNet
from bench.config.sections import HeadConfig, OptimConfig
from bench.core import registry
from bench.core.errors import BenchError
from bench.spectra import Delta
from bench.spectra.layers import layer_matrix
from bench.training.gradients import missing_gradients
from bench.training.truncation import Truncated
from methods.full.method import Full

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "lora, all-linear": ("lora", {"target": "all-linear"}),
    "deeplora": ("deeplora", {}),
    "adalora": ("adalora", {}),
    "adapter": ("adapter", {}),
    "bitfit": ("bitfit", {}),
    "full": ("full", {}),
    "peft:vera": ("peft:vera", {"r": 4}),
}
"""Column → method and its options."""
EXACT = 1e-9
"""Relative error of float64 outputs that counts as none."""
NEARLY = {"deeplora": 1e-5}
"""Column → relative distance of its start from the backbone: Deep LoRA's factors start at 10⁻³."""


@dataclass(frozen=True)
class Architecture:
    """A small network: `build` draws it from seed 0; images have `size`, and 0 stands for text."""

    build: Callable[[], Any]
    size: int = 0

    def network(self) -> Any:
        """A new network in float64 and evaluation mode, with no tensor at zero or one: a zero hides what follows it."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: Any = self.build().double().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        return network

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Two images, or three texts, the first of which is padded."""
        torch.manual_seed(1)
        if self.size:
            return {"x": torch.randn(2, 3, self.size, self.size, dtype=torch.float64)}
        ids, mask = torch.randint(5, 55, (3, 12)), torch.ones(3, 12, dtype=torch.long)
        ids[0, 8:], mask[0, 8:] = 0, 0
        return {"input_ids": ids, "attention_mask": mask}


def text(family: str, model: str = "AutoModel", **sizes: Any) -> Architecture:
    """A text network of transformers, by the name of its configuration and the names of its sizes."""
    config = getattr(transformers, f"{family}Config")

    def build() -> TextEncoder:
        kind = getattr(transformers, model)
        made = kind.from_config(config(**sizes)) if model == "AutoModel" else kind(config(**sizes))
        return TextEncoder(made, "mean", Path())

    return Architecture(build)


def image(build: Callable[[], nn.Module], size: int) -> Architecture:
    """An image network of timm."""
    return Architecture(lambda: TimmNet(build(), (3, size, size)), size)


def named(name: str, size: int, **sizes: Any) -> Architecture:
    """An image network of timm by its name there."""
    return image(lambda: timm.create_model(name, num_classes=0, **sizes), size)


BERT = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
GPT = {"vocab_size": 60, "n_embd": 24, "n_layer": 2, "n_head": 2}
T5 = {"vocab_size": 60, "d_model": 24, "num_layers": 2, "num_heads": 2, "d_ff": 32, "d_kv": 12}
SQUEEZE = {f"{part}_groups": 1 for part in ("q", "k", "v", "post_attention", "intermediate", "output")}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
SWIN = {
    "img_size": 32,
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 12,
    "depths": (2, 1),
    "num_heads": (2, 2),
}
FOUR = {"embed_dims": (16, 24, 32, 40), "num_heads": (2, 2, 2, 2), "depths": (1, 1, 1, 1)}
CLIP_IMAGE = {**BERT, "image_size": 32, "patch_size": 8}

ARCHITECTURES: dict[str, Architecture] = {
    "BERT": text("Bert", **BERT),
    "RoBERTa": text("Roberta", **BERT),
    "XLM-RoBERTa": text("XLMRoberta", **BERT),
    "DistilBERT": text("DistilBert", vocab_size=60, dim=24, n_layers=2, n_heads=2, hidden_dim=32),
    "ALBERT": text("Albert", **BERT, embedding_size=16),
    "ELECTRA": text("Electra", **BERT, embedding_size=16),
    "DeBERTa": text("Deberta", **BERT, **DISENTANGLED),
    "DeBERTa-v2": text("DebertaV2", **BERT, **DISENTANGLED),
    "MPNet": text("MPNet", **BERT),
    "ConvBERT": text("ConvBert", **BERT, embedding_size=16, head_ratio=1),
    "SqueezeBERT": text("SqueezeBert", **BERT, **SQUEEZE, embedding_size=24),
    "MobileBERT": text("MobileBert", **BERT, embedding_size=16, true_hidden_size=16, intra_bottleneck_size=16),
    "XLNet": text("XLNet", vocab_size=60, d_model=24, n_layer=2, n_head=2, d_inner=32),
    "RoFormer": text("RoFormer", **BERT),
    "FNet": text("FNet", vocab_size=60, hidden_size=24, num_hidden_layers=2, intermediate_size=32),
    "BigBird": text("BigBird", **BERT, attention_type="original_full"),
    "ESM": text("Esm", **BERT, pad_token_id=1, mask_token_id=2),
    "ModernBERT": text("ModernBert", **BERT, pad_token_id=0, reference_compile=False),
    "RemBERT": text("RemBert", **BERT, input_embedding_size=16),
    "LayoutLM": text("LayoutLM", **BERT),
    "CLIP, text": text("CLIPText", "CLIPTextModel", **BERT, eos_token_id=59),
    "T5": text("T5", **T5),
    "T5, encoder": text("T5", "T5EncoderModel", **T5, feed_forward_proj="gated-gelu"),
    "BART": text(
        "Bart",
        vocab_size=60,
        d_model=24,
        **{f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")},
        **{f"{part}_ffn_dim": 32 for part in ("encoder", "decoder")},
    ),
    "GPT-2": text("GPT2", **GPT),
    "GPT-NeoX": text("GPTNeoX", **BERT),
    "OPT": text(
        "OPT",
        vocab_size=60,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=32,
        word_embed_proj_dim=24,
    ),
    "Llama": text("Llama", **BERT),
    "Qwen2": text("Qwen2", **BERT, num_key_value_heads=1),
    "BLOOM": text("Bloom", vocab_size=60, hidden_size=24, n_layer=2, n_head=2),
    "ViT": named("vit_tiny_patch16_224", 32, **VIT),
    "ViT, qk-norm": named("vit_tiny_patch16_224", 32, **VIT, qk_norm=True),
    "DeiT, distilled": named("deit_tiny_distilled_patch16_224", 32, **VIT),
    "CLIP, image": named("vit_base_patch16_clip_224", 32, **VIT),
    "BEiT": named("beit_base_patch16_224", 32, **VIT, init_values=0.1),
    "EVA-02": named("eva02_tiny_patch14_224", 32, **VIT),
    "CaiT": named("cait_xxs24_224", 32, **VIT),
    "XCiT": named("xcit_nano_12_p16_224", 32, **VIT),
    "Swin": named("swin_tiny_patch4_window7_224", 32, **SWIN),
    "SwinV2": named("swinv2_tiny_window8_256", 32, **SWIN),
    "MaxViT": named("maxvit_pico_rw_256", 32, img_size=32, embed_dim=(64, 64, 64, 64), depths=(1, 1, 1, 1)),
    "GCViT": image(
        lambda: gcvit.GlobalContextVit(
            img_size=64, embed_dim=24, depths=(2, 1, 1, 1), num_heads=(2, 2, 2, 2), num_classes=0
        ),
        64,
    ),
    "TinyViT": named("tiny_vit_5m_224", 64, **FOUR, window_sizes=(4, 4, 2, 1)),
    "EfficientFormer": image(
        lambda: efficientformer.EfficientFormer(
            depths=(1, 1, 1, 2), embed_dims=(16, 24, 32, 40), num_vit=1, mlp_ratios=2, num_classes=0
        ),
        224,
    ),
    "PVTv2": named("pvt_v2_b0", 64, **FOUR),
    "Twins": named("twins_svt_small", 64, **FOUR, img_size=64, wss=(4, 4, 4, 2)),
    "ConViT": named("convit_tiny", 32, **VIT),
    "LeViT": named(
        "levit_128s", 64, img_size=64, embed_dim=(16, 24, 32), key_dim=8, num_heads=(2, 2, 2), depth=(1, 1, 1)
    ),
    "CrossViT": image(
        lambda: crossvit.CrossVit(
            **{"img_size": 48, "img_scale": (1.0, 1.0), "patch_size": (8, 16), "embed_dim": (16, 24)},
            **{"num_heads": (2, 2), "depth": ((1, 1, 0),), "mlp_ratio": (2.0, 2.0, 1.0), "num_classes": 0},
        ),
        48,
    ),
    "Visformer": named("visformer_tiny", 64, img_size=64, embed_dim=32, depth=(1, 1, 1), num_heads=2),
    "EfficientViT-M": named(
        "efficientvit_m0",
        64,
        **{"img_size": 64, "embed_dim": (16, 24, 32), "key_dim": (8, 8, 8), "num_heads": (2, 2, 2)},
        **{"depth": (1, 1, 1), "window_size": (4, 4, 4)},
    ),
    "NesT": image(
        lambda: nest.Nest(img_size=64, embed_dims=(16, 24, 32), num_heads=(2, 2, 2), depths=(1, 1, 1), num_classes=0),
        64,
    ),
    "VOLO": image(
        lambda: volo.VOLO(
            (1, 1, 1, 1), img_size=64, embed_dims=(16, 32, 32, 32), num_heads=(2, 2, 2, 2), num_classes=0
        ),
        64,
    ),
    "MViTv2": image(
        lambda: mvitv2.MultiScaleVit(
            mvitv2.MultiScaleVitCfg(embed_dim=16, depths=(1, 1, 1, 1), num_heads=1), img_size=(64, 64), num_classes=0
        ),
        64,
    ),
    "DaViT": named("davit_tiny", 64, **FOUR),
    "Hiera": named("hiera_tiny_224", 64, img_size=(64, 64), embed_dim=16, num_heads=1, stages=(1, 1, 1, 1)),
    "FocalNet": image(lambda: focalnet.FocalNet(embed_dim=16, depths=(1, 1, 1, 1), num_classes=0), 64),
    "PoolFormer": image(lambda: metaformer.MetaFormer(depths=(1, 1, 1, 1), dims=(8, 16, 16, 24), num_classes=0), 64),
    "MLP-Mixer": image(
        lambda: mlp_mixer.MlpMixer(img_size=32, patch_size=8, embed_dim=24, num_blocks=2, num_classes=0), 32
    ),
    "ConvNeXt": named("convnext_atto", 32, dims=(8, 16, 16, 24), depths=(1, 1, 1, 1)),
    "RepViT": named("repvit_m0_9", 64, embed_dim=(8, 16, 16, 24), depth=(1, 1, 1, 1)),
    "DenseNet": named("densenet121", 32, growth_rate=8, block_config=(2, 2)),
    "ResNet": named("resnet10t", 32),
}


def adapted(architecture: Architecture, column: str) -> Method:
    """The architecture under a method of `METHODS`, in float64."""
    name, options = METHODS[column]
    modality = "image" if architecture.size else "text"
    task = TaskSpec(name="t", version=1, modality=modality, num_classes=3, metrics=("accuracy",), primary=("accuracy",))
    kind, config = registry.load("methods", name), registry.load_config("methods", name)
    network, inputs = architecture.network(), architecture.inputs
    method: Method = kind(
        network, task, config(**options), head=HeadConfig(), optim=OptimConfig(), lr=1e-3, seed=0
    ).double()
    labels = torch.arange(len(next(iter(inputs.values()))))
    method.adapt({"inputs": inputs, "labels": labels, "weight": torch.tensor(1.0)})
    return method.double()


def examine(architecture: Architecture, column: str) -> list[str]:
    """Hold a method on an architecture against what every record claims of it; return the warnings of its record.

    Raises:
        BenchError: the method refuses the architecture.
        AssertionError: names what does not hold.
    """
    inputs = architecture.inputs
    with torch.no_grad():
        start = architecture.network()(**inputs)
    method = adapted(architecture, column)
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    frozen = {name: p.clone() for name, p in method.named_parameters() if not p.requires_grad}
    method.eval()
    with torch.no_grad():
        assert error(method.features(inputs), start) < NEARLY.get(column, EXACT), "it starts at the backbone's function"

    method.train()
    F.cross_entropy(method(inputs), torch.arange(len(start)) % 3).backward()
    notes = [*method.warnings(), *missing_gradients(method)]
    torch.optim.SGD(trained.values(), lr=0.1).step()
    assert not [n for n, p in method.named_parameters() if n in frozen and not torch.equal(p, frozen[n])], "frozen"

    torch.manual_seed(2)
    method.eval()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter += 0.05 * torch.randn_like(parameter) * (not name.startswith("head."))
        moved = method.features(inputs)
        assert error(moved, start) > 1e-6, "what trains reaches the features"
        if (deltas := dict(method.deltas())) and column != "full":
            assert error(merged(architecture, deltas)(**inputs), moved) < EXACT, "W + ΔW is the adapted network"
        if deltas and column in ("lora", "full", "peft:vera"):
            assert error(*truncated(architecture, method, deltas)) < EXACT, "ΔW is cut to rank 1"
    return notes


def truncated(architecture: Architecture, method: Method, deltas: dict[str, Delta]) -> tuple[Tensor, Tensor]:
    """Features of the method with every ΔW cut to rank 1, and those of a network whose weights were changed."""
    inputs, cuts = architecture.inputs, Truncated(method)
    with cuts.keep(0):
        method.features(inputs)
    with cuts.keep(1):
        found = method.features(inputs)
    cut = {name: delta if name in cuts.whole else best_of_rank_1(delta) for name, delta in deltas.items()}
    if not isinstance(method, Full):
        return found, merged(architecture, cut)(**inputs)
    network = copy.deepcopy(method.backbone)  # in which biases and scales are trained too
    for name, delta in cut.items():
        layer = network.get_submodule(name)
        change = layer_matrix(layer, (delta.dense() - deltas[name].dense()).reshape(len(delta.dense()), -1))
        layer.weight += change.reshape(layer.weight.shape)
    return found, network(**inputs)


def best_of_rank_1(delta: Delta) -> Delta:
    """ΔW cut to its largest singular value, by numpy."""
    u, s, vt = np.linalg.svd(delta.dense().numpy(), full_matrices=False)
    return Delta(factors=(torch.from_numpy(u[:, :1] * s[:1]), torch.from_numpy(vt[:1])), nominal=1)


def merged(architecture: Architecture, deltas: dict[str, Any]) -> nn.Module:
    """A plain network with ΔW added to the weights that the names say; fused projections are split as they name it."""
    network = architecture.network()
    if not deltas.keys() <= dict(network.named_modules()).keys():
        split_fused(network, architecture.inputs)
    for name, delta in deltas.items():
        weight = network.get_submodule(name).weight
        weight += delta.dense().view_as(weight)
    return network


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def outcome(name: str, column: str) -> tuple[str, list[str]]:
    """One of `SIGNS`, and what the method says of the architecture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            notes = examine(ARCHITECTURES[name], column)
        except BenchError as refusal:
            return "–", [refusal.what]
    return "◐" if notes else "●", notes
