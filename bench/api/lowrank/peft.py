"""Exported low-rank updates as LoRA, DoRA and AdaLoRA adapters of `peft`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from bench.api.peft import PeftAdapter
from bench.core.errors import UsageError

T = TypeVar("T")
TENSOR = re.compile(r"backbone\.(.+)\.(factors\.\d+|start_a|start_b|magnitude)")
PARTS = ("query", "key", "value")
FUSED = re.compile(rf"(.+(?:qkv|c_attn))\.({'|'.join(PARTS)})")
COMMON = {
    "task_type": None,
    "base_model_name_or_path": None,
    "inference_mode": True,
    "lora_dropout": 0.0,
    "bias": "none",
}
"""Options of every adapter that we write."""
PREFIX = "base_model.model."
"""Where peft's wrapper holds the network."""
WRAPPER = "model."
"""Attribute of our text and timm backbones that holds the network peft adapts."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A (r, n), or (r, in, k, k) of a convolution; B (m, r); peft's α; DoRA's magnitude (m,)."""

    a: Tensor
    b: Tensor
    alpha: float
    magnitude: Tensor | None = None


def lora_adapter(tensors: Mapping[str, Tensor], alpha: Callable[[int], float], *, rslora: bool = False) -> PeftAdapter:
    """Return a LoRA adapter from the exported factors F_1 … F_L of every layer: A = F_1 (r, n), B = F_L·…·F_2 (m, r).

    PiSSA's B·A − B₀·A₀ becomes [B, −B₀]·[A; A₀]. Where that raises the rank, α rises so that the scale, α/r or with
    `rslora` α/√r, stays.

    Raises:
        UsageError: DoRA on parts of a fused projection.
    """
    growth = 0.5 if rslora else 1.0
    layers = {name: _layer(parts, alpha, growth) for name, parts in by_layer(tensors, TENSOR).items()}
    layers = _fuse({name.removeprefix(WRAPPER): layer for name, layer in layers.items()}, growth)
    rank = max(len(layer.a) for layer in layers.values())
    most = max(layer.alpha for layer in layers.values())
    written: dict[str, Tensor] = {}
    for name, layer in layers.items():
        square = (1,) * (layer.a.ndim - 2)  # peft: B of a convolution is (m, r, 1, 1), its magnitude (1, m, 1, 1)
        written[f"{PREFIX}{name}.lora_A.weight"] = layer.a
        written[f"{PREFIX}{name}.lora_B.weight"] = layer.b.reshape(*layer.b.shape, *square)
        if layer.magnitude is not None:
            written[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.magnitude.reshape(*square[:1], -1, *square)
    config = {
        "peft_type": "LORA",
        **COMMON,
        "r": rank,
        "lora_alpha": _whole(most),
        "rank_pattern": {_exactly(name): len(layer.a) for name, layer in layers.items() if len(layer.a) != rank},
        "alpha_pattern": {_exactly(name): _whole(layer.alpha) for name, layer in layers.items() if layer.alpha != most},
        "target_modules": target_modules(layers),
        "init_lora_weights": True,
        "use_rslora": rslora,
        "use_dora": any(layer.magnitude is not None for layer in layers.values()),
    }
    return PeftAdapter(config, written)


def adalora_adapter(tensors: Mapping[str, Tensor], alpha: float) -> PeftAdapter:
    """Return an AdaLoRA adapter from A (r₀, n), E (r₀, 1) and B (m, r₀) of every layer, without triplets whose E is 0.

    peft starts every layer with the same rank and divides by it; where ours differ, E absorbs the difference. peft's
    AdaLoRA would tie the triplets of a part of a fused projection to all its rows, and does not know convolutions. With
    one of these every layer becomes a LoRA of B·diag(E) and A.
    """
    layers = {n.removeprefix(WRAPPER): p for n, p in by_layer(tensors, TENSOR).items()}
    if any(FUSED.fullmatch(name) or parts["factors.0"].ndim > 2 for name, parts in layers.items()):
        diagonal = {key: t[:, 0].diag() if key.endswith("factors.1") else t for key, t in tensors.items()}
        return lora_adapter(diagonal, lambda rank: alpha * rank / (rank + 1e-5))
    rank = max(len(parts["factors.1"]) for parts in layers.values())
    pattern: dict[str, list[bool]] = {}
    written: dict[str, Tensor] = {}
    for name, parts in layers.items():
        a, e, b = (parts[f"factors.{i}"] for i in range(3))
        kept = e[:, 0] != 0
        pattern[f"{name}.lora_E"] = kept.tolist() + [False] * (rank - len(e))
        e = e * ((rank + 1e-5) / (len(e) + 1e-5))
        written |= {f"{PREFIX}{name}.lora_A": a[kept], f"{PREFIX}{name}.lora_B": b[:, kept]}
        written[f"{PREFIX}{name}.lora_E"] = e[kept]
    config = {
        "peft_type": "ADALORA",
        **COMMON,
        "init_r": rank,
        "target_r": max(1, sum(map(sum, pattern.values())) // len(pattern)),
        "lora_alpha": _whole(alpha),
        "rank_pattern": pattern,
        "target_modules": target_modules(layers),
        "total_step": 1,  # peft requires a schedule, although the choice of triplets is final
    }
    return PeftAdapter(config, written)


def _exactly(name: str) -> str:
    """Return a key for peft's patterns that matches this layer alone.

    A name without a dot would also match the end of others, as `conv1` matches `layer1.0.conv1`.
    """
    return name if "." in name else f"^{name}"


def target_modules(names: Iterable[str]) -> list[str] | str:
    """Return peft's `target_modules`: the names, or an expression where a name would also match the end of others."""
    ordered = sorted(names)
    return ordered if all("." in name for name in ordered) else "|".join(map(re.escape, ordered))


def by_layer(tensors: Mapping[str, T], pattern: re.Pattern[str]) -> dict[str, dict[str, T]]:
    """Group values by layer and part, the two groups of the pattern; other keys are left out."""
    layers: dict[str, dict[str, T]] = {}
    for key, value in tensors.items():
        if match := pattern.fullmatch(key):
            layers.setdefault(match[1], {})[match[2]] = value
    return layers


def _layer(parts: Mapping[str, Tensor], alpha: Callable[[int], float], growth: float) -> Layer:
    factors = [parts[f"factors.{i}"] for i in range(sum(name.startswith("factors.") for name in parts))]
    a, b = factors[0], factors[1]
    for factor in factors[2:]:
        b = factor @ b
    scale = alpha(len(a))
    if "start_a" in parts:
        a, b = torch.cat([a, parts["start_a"]]), torch.cat([b, -parts["start_b"]], 1)
        scale *= 2**growth
    return Layer(a=a, b=b, alpha=scale, magnitude=parts.get("magnitude"))


def _fuse(layers: Mapping[str, Layer], growth: float) -> dict[str, Layer]:
    """Join the parts of a fused layer (`qkv`) into one LoRA of the sum of their ranks, zero on rows without a part.

    With A = [A_q; A_v] (2r, n) and B = [[B_q, 0], [0, 0], [0, B_v]] (3d, 2r) the rank doubles, and α with it.
    """
    fused = {name: layer for name, layer in layers.items() if not FUSED.fullmatch(name)}
    for name, parts in by_layer(layers, FUSED).items():
        first = next(iter(parts.values()))
        if first.magnitude is not None:
            raise UsageError(
                "DoRA on query and value of a fused projection has no equivalent in peft",
                f"{name} would need a magnitude for the rows of the keys, which were not adapted",
                "Use method.dora=false, or method.target=qkv$ to adapt the projection as a whole.",
            )
        width, rank = len(first.b), sum(len(part.a) for part in parts.values())
        b = first.b.new_zeros(3 * width, rank)
        column, ordered = 0, [(i, parts[part]) for i, part in enumerate(PARTS) if part in parts]
        for row, part in ordered:
            r = len(part.a)
            ratio = part.alpha / r**growth / (first.alpha / len(first.a) ** growth)  # 1 for parts of one rank
            b[row * width : (row + 1) * width, column : column + r] = part.b * ratio
            column += r
        a = torch.cat([part.a for _, part in ordered])
        fused[name] = Layer(a=a, b=b, alpha=first.alpha * (rank / len(first.a)) ** growth)
    return fused


def _whole(value: float) -> float | int:
    """Return α as peft writes it: an int where it is whole."""
    return int(value) if value == int(value) else value
