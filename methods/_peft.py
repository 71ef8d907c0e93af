"""Low-rank updates as LoRA adapters of `peft`, and such adapters as a start for ours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UsageError
from bench.exchange import TENSORS, PeftFolder, open_folder
from bench.method import Peft

FACTOR = re.compile(r"backbone\.(.+)\.factors\.(\d+)")
FUSED = re.compile(r"(.+qkv)\.(query|key|value)")
PART = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
WRAPPER = "model."
"""Our backbones hold the network that peft adapts as their attribute `model`."""
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of peft's `init_lora_weights` that leave the frozen weight as it is."""
BEYOND = (
    *("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters"),
    *("layer_replication", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config"),
    *("kasa_config", "velora_config", "monteclora_config"),
)
"""Options of peft's LoRA that make more of it than W + scale·B·A."""


def lora(tensors: Mapping[str, Tensor], alpha: Callable[[int], float]) -> Peft:
    """A LoRA adapter of the factors F_1 … F_L of every layer: A = F_1 (r, n), B = F_L·…·F_2 (m, r).

    Args:
        tensors: what `Method.export` gave.
        alpha: α of a layer of rank r, so that α/r is the scale of its ΔW.
    """
    layers = {name: (f[0], _product(f[1:]), alpha(len(f[0]))) for name, f in _factors(tensors).items()}
    layers = _fuse(layers)
    ranks = {name: len(a) for name, (a, _, _) in layers.items()}
    alphas = {name: alpha for name, (_, _, alpha) in layers.items()}
    rank, scale = max(ranks.values()), max(alphas.values())
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _whole(scale),
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: _whole(a) for name, a in alphas.items() if a != scale},
        "target_modules": sorted(layers),
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
    }
    prefix = "base_model.model."
    pairs = {f"{prefix}{name}.lora_A.weight": a for name, (a, _, _) in layers.items()}
    return config, pairs | {f"{prefix}{name}.lora_B.weight": b for name, (_, b, _) in layers.items()}


def options(folder: PeftFolder) -> dict[str, Any]:
    """Our LoRA's rank, alpha, scaling and target that a LoRA adapter of peft stands for.

    Raises:
        UsageError: it is more than, or other than, W + scale·B·A on linear layers.
    """
    config = folder.config
    beyond = [f"{key}={config[key]}" for key in BEYOND if config.get(key)]
    if config["peft_type"] != "LORA":
        beyond = [f"peft_type={config['peft_type']}"]
    if config.get("bias", "none") != "none":
        beyond.append(f"bias={config['bias']}")
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        beyond.append(f"init_lora_weights={config['init_lora_weights']}")
    beyond += [key for key in folder.shapes if not PART.fullmatch(key)][:3]
    if beyond or not folder.shapes:
        raise UsageError(
            f"method.start={folder.path}: not a plain LoRA adapter",
            f"it has {', '.join(beyond) or 'no tensors'}",
            "Start from an adapter whose update is scale·B·A on linear layers.",
        )
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    names = {re.sub(r"\d+", r"\\d+", re.escape(name)) for name in _parts(folder.shapes)}
    if config.get("use_rslora"):
        alpha *= math.sqrt(rank)
    return {
        "rank": rank,
        "alpha": alpha,
        "scaling": "standard",
        "target": rf"^({WRAPPER})?({'|'.join(sorted(names))})$",
    }


def start(path: Path, found: Sequence[tuple[str, nn.Linear]], scale: Callable[[int], float]) -> dict[str, list[Tensor]]:
    """Factors A and B by layer, from an adapter directory; `scale` gives ours by rank, and B takes the difference.

    Raises:
        EnvironmentProblem: the directory cannot be read.
        UsageError: it adapts other layers than those found.
    """
    folder = open_folder(path)
    options(folder)
    parts, tensors = _parts(folder.shapes), load_file(folder.path / TENSORS)
    wanted = {name.removeprefix(WRAPPER): (name, layer) for name, layer in found}
    if wanted.keys() != parts.keys():
        more, less = sorted(parts.keys() - wanted.keys()), sorted(wanted.keys() - parts.keys())
        raise UsageError(
            "method.start adapts other layers than method.target names",
            f"only the adapter has {more[:2] or 'none'}, only the target names {less[:2] or 'none'}",
            "Give a method.target that matches the adapter's layers, on the backbone it was trained on.",
        )
    made: dict[str, list[Tensor]] = {}
    for bare, pair in parts.items():
        a, b = tensors[pair["A"]], tensors[pair["B"]]
        name, layer = wanted[bare]
        if (b.shape[0], a.shape[1]) != layer.weight.shape:
            raise UsageError(
                f"method.start does not fit {name}",
                f"its ΔW is {b.shape[0]}×{a.shape[1]}, the layer {layer.out_features}×{layer.in_features}",
                "Use the backbone it was trained on.",
            )
        made[name] = [a, b * (_scale(folder.config, bare, len(a)) / scale(len(a)))]
    return made


def _factors(tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Factors by the name that a layer has in the bare network, in the order they meet the input."""
    found: dict[str, dict[int, Tensor]] = {}
    for key, tensor in tensors.items():
        if match := FACTOR.fullmatch(key):
            found.setdefault(match[1].removeprefix(WRAPPER), {})[int(match[2])] = tensor
    return {name: [factors[i] for i in sorted(factors)] for name, factors in found.items()}


def _product(factors: Sequence[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = factor @ product
    return product


def _fuse(layers: Mapping[str, tuple[Tensor, Tensor, float]]) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Parts of one linear layer `qkv` become one LoRA of the sum of their ranks, zero on the rows of no part.

    With A = [A_q; A_v] (2r, n) and B = [[B_q, 0], [0, 0], [0, B_v]] (3d, 2r) the rank doubles, and so must α.
    """
    made: dict[str, tuple[Tensor, Tensor, float]] = {}
    groups: dict[str, dict[str, tuple[Tensor, Tensor, float]]] = {}
    for name, layer in layers.items():
        match = FUSED.fullmatch(name)
        if match:
            groups.setdefault(match[1], {})[match[2]] = layer
        else:
            made[name] = layer
    for name, parts in groups.items():
        first, _, alpha = next(iter(parts.values()))
        scale, rank = alpha / len(first), sum(len(a) for a, _, _ in parts.values())
        width = next(b.shape[0] for _, b, _ in parts.values())
        b = first.new_zeros(3 * width, rank)
        column = 0
        for row, part in enumerate(("query", "key", "value")):
            if part in parts:
                a_i, b_i, alpha_i = parts[part]
                share = (alpha_i / len(a_i)) / scale  # 1 where both have one rank
                b[row * width : (row + 1) * width, column : column + len(a_i)] = b_i * share
                column += len(a_i)
        ordered = [parts[part][0] for part in ("query", "key", "value") if part in parts]
        made[name] = (torch.cat(ordered), b, alpha * (rank / len(first)))
    return made


def _parts(shapes: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Keys of A and B by the name of their layer in the bare network."""
    found: dict[str, dict[str, str]] = {}
    for key in shapes:
        if match := PART.fullmatch(key):
            found.setdefault(match[1], {})[match[2]] = key
    return found


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """α/r, or α/√r of rsLoRA, with the layer's own α where a pattern gives one."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    alpha = next((a for key, a in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", name)), config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _whole(value: float) -> float | int:
    """peft writes α as a whole number where it is one."""
    return int(value) if value == int(value) else value
