"""Text encoders in the layout of `save_pretrained`: checked and hashed, not loaded."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.api.backbone import Backbone
from bench.config.sections import BackboneConfig
from bench.core.errors import EnvironmentProblem
from bench.core.files import sha256, tensor_shapes

WEIGHT_FILES = ("*.safetensors",)
TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)


def from_folder(name: str, folder: Path, config: BackboneConfig | None = None, **more: Any) -> Backbone:
    """A text encoder in the layout of `save_pretrained`.

    Args:
        name: of the backbone.
        folder: where it lies.
        config: its options; None: the defaults.
        more: other fields of the Backbone.

    Raises:
        EnvironmentProblem: configuration, safetensors weights or tokenizer are missing.
    """
    if not (folder / "config.json").is_file():
        raise EnvironmentProblem(
            f"backbone '{name}' has no config.json",
            f"looked in {folder}",
            "Give a folder that save_pretrained wrote, or a hub id.",
        )
    if not list(folder.glob("*.safetensors")):
        raise EnvironmentProblem(
            f"backbone '{name}' has no safetensors weights",
            f"{folder} holds: {', '.join(sorted(p.name for p in folder.iterdir()))[:300]}",
            "Convert it: AutoModel.from_pretrained(…).save_pretrained(DIR, safe_serialization=True).",
        )
    files = sorted(folder.glob("*.safetensors"))
    weights = {key: shape for file in files for key, shape in tensor_shapes(file).items()}
    return Backbone(
        name=name,
        modalities=("text",),
        loader="bench.backbones.encoder:load",
        path=folder,
        pooling=_pooling(folder, weights),
        weights_hash=content_hash(folder.resolve()),
        parameters=sum(math.prod(shape) for shape in weights.values()),
        config=config or BackboneConfig(),
        **more,
    )


def _pooling(folder: Path, weights: dict[str, list[int]]) -> Literal["mean", "cls", "pooler"]:
    """What it was trained with: sentence-transformers say so; a pooler in the weights was trained; else the mean."""
    sentence = folder / "1_Pooling" / "config.json"
    if sentence.is_file():
        return "cls" if json.loads(sentence.read_text()).get("pooling_mode_cls_token") else "mean"
    return "pooler" if any("pooler.dense.weight" in key for key in weights) else "mean"


@cache
def content_hash(folder: Path) -> str:
    """sha256 over names and bytes of the files that decide what a backbone computes."""
    digest = hashlib.sha256()
    files = {file for pattern in (*WEIGHT_FILES, *TEXT_FILES) for file in folder.glob(pattern)}
    for file in sorted(files, key=lambda f: f.name):
        digest.update(f"{file.name}\x00{sha256(file)}\x00".encode())
    return digest.hexdigest()
