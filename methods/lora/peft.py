"""LoRA and DoRA adapters of `peft` as the start of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from bench.api.lowrank.base import Layers
from bench.api.lowrank.peft import WRAPPER, by_layer
from bench.api.peft import TENSORS, PeftFolder, open_folder
from bench.config.options import Value
from bench.core.errors import UsageError
from bench.spectra import matricize

Start = tuple[list[Tensor], Tensor | None]
"""A and B of a layer, and its magnitude."""
PART = re.compile(r"base_model\.model\.(.+)\.lora_(A\.weight|B\.weight|magnitude_vector)")
CLASSIFYING = "SEQ_CLS"
"""Task type of an adapter of one of transformers' models for classification, which holds the encoder by a name of its
own, as `bert`, and the head beside it."""
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of peft's `init_lora_weights` that do not change the frozen weight."""
UNSUPPORTED = (
    *("lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"),
    *("use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config"),
    "monteclora_config",
)
"""Options of peft's LoRA with which it is more than a LoRA or DoRA of a layer."""


def read_options(folder: PeftFolder) -> dict[str, Value]:
    """Return the options of our LoRA that a LoRA adapter of peft stands for.

    Raises:
        UsageError: it is more than, or other than, a LoRA or DoRA of linear layers and convolutions.
    """
    config = folder.config
    classifies = config.get("task_type") == CLASSIFYING
    ignored = ("modules_to_save",) if classifies else ()  # the head: a run has one of its own
    unsupported = [f"{key}={config[key]}" for key in UNSUPPORTED if config.get(key) and key not in ignored]
    if config["peft_type"] != "LORA":
        unsupported = [f"peft_type={config['peft_type']}"]
    if config.get("bias", "none") != "none":
        unsupported.append(f"bias={config['bias']}")
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        unsupported.append(f"init_lora_weights={config['init_lora_weights']}")
    unsupported += [key for key in folder.shapes if not PART.fullmatch(key) and not _is_head(folder, key)][:3]
    if unsupported or not folder.shapes:
        raise UsageError(
            f"method.start={folder.path}: not a plain LoRA adapter",
            f"it has {', '.join(unsupported) or 'no tensors'}",
            "Start from an adapter that does not change the frozen weights.",
        )
    # the number of a block stands for any number; in convolutional networks only whole words do: conv1 is not conv2
    number = r"\b\d+\b" if any(len(shape) == 4 for shape in folder.shapes.values()) else r"\d+"
    names = {re.sub(number, r"\\d+", re.escape(_bare(folder, name))) for name in by_layer(folder.shapes, PART)}
    return {
        "rank": int(config["r"]),
        "alpha": float(config["lora_alpha"]),
        "scaling": "rank-stabilized" if config.get("use_rslora") else "standard",
        "dora": bool(config.get("use_dora")),
        "init": "kaiming",
        "target": rf"^({WRAPPER})?({'|'.join(sorted(names))})$",
    }


def read_start(path: Path, layers: Layers, scale: Callable[[int], float]) -> dict[str, Start]:
    """Read the adapter's start of the layers that method.target names.

    B absorbs the ratio of the adapter's factor on B·A to ours, `scale` of the rank.

    Raises:
        EnvironmentProblem: the directory cannot be read.
        UsageError: it adapts other layers.
    """
    folder = open_folder(path)
    read_options(folder)
    stored = by_layer(load_file(folder.path / TENSORS), PART)
    adapted = {_bare(folder, name): parts for name, parts in stored.items()}
    full = {_bare(folder, name): name for name in stored}
    wanted = {name.removeprefix(WRAPPER): (name, layer) for name, layer in layers}
    if wanted.keys() != adapted.keys():
        more, less = sorted(adapted.keys() - wanted.keys()), sorted(wanted.keys() - adapted.keys())
        in_adapter, in_target = (", ".join(names[:2]) or "none" for names in (more, less))
        raise UsageError(
            "method.start adapts other layers than method.target names",
            f"only in the adapter: {in_adapter}; only in the target: {in_target}",
            "Set method.target to match the adapter's layers, on the backbone it was trained on.",
        )
    start: dict[str, Start] = {}
    for bare, parts in adapted.items():
        a, b = (parts[f"{part}.weight"].flatten(1) for part in "AB")
        name, layer = wanted[bare]
        m, n = matricize(layer.weight).shape
        if (len(b), a.shape[1]) != (m, n):
            raise UsageError(
                f"method.start does not fit {name}",
                f"its ΔW is {len(b)}×{a.shape[1]}, the layer {m}×{n}",
                "Use the backbone it was trained on.",
            )
        ratio = _scale(folder, full[bare], len(a)) / scale(len(a))
        start[name] = [a, b * ratio], parts.get("magnitude_vector")
    return start


def _bare(folder: PeftFolder, name: str) -> str:
    """Return a layer's name in the encoder alone."""
    return name.partition(".")[2] if folder.config.get("task_type") == CLASSIFYING else name


def _is_head(folder: PeftFolder, key: str) -> bool:
    """Whether a tensor is of the modules that a classifier's adapter has beside the encoder's."""
    saved: list[str] = folder.config.get("modules_to_save") or []
    classifies = folder.config.get("task_type") == CLASSIFYING
    return classifies and key.removeprefix("base_model.model.").partition(".")[0] in saved


def _scale(folder: PeftFolder, name: str, rank: int) -> float:
    """Return α/r, or α/√r of rsLoRA, with the layer's own α where a pattern gives one."""
    config = folder.config
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = next((a for key, a in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", name)), config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
