"""Pretrained networks by name: found and hashed at plan time, loaded only to train."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench import registry
from bench.config import BackboneConfig, HeadConfig
from bench.errors import EnvironmentProblem, UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

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


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """An opened backbone: its files are there, its bytes are known, nothing is loaded.

    Attributes:
        name: as given on the command line (a directory by its last part).
        modality: what it reads.
        path: the folder of weights, configuration and tokenizer.
        pooling: how its token features become one vector, by default.
        weights_hash: sha256 over weights, configuration and tokenizer files, by their content.
        parameters: numbers in the weight files.
    """

    name: str
    modality: Literal["text", "image"]
    path: Path
    pooling: Literal["mean", "cls", "pooler"]
    weights_hash: str
    parameters: int

    def load(self, *, head: HeadConfig, config: BackboneConfig) -> nn.Module:
        """The network: called with a batch's inputs it gives pooled features (B, `width`)."""
        from bench.backbones.encoder import TextEncoder

        pooling = self.pooling if head.pooling == "auto" else head.pooling
        return TextEncoder(self.path, pooling=pooling, dropout=config.dropout)

    def tokenizer(self) -> Any:
        """Its tokenizer, by transformers."""
        from bench.backbones.encoder import load_tokenizer

        return load_tokenizer(str(self.path))


class Opener(Protocol):
    """What a registry entry of kind `backbones` is: a class with this one method."""

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        """Find and hash it.

        Raises:
            EnvironmentProblem: it is not there, or its bytes are not those expected.
        """
        ...


def open_backbone(name: str, config: BackboneConfig) -> Backbone:
    """A registered name, a local directory, or a hub id.

    Raises:
        UsageError: a bare word that is nearly a registered name.
        EnvironmentProblem: not there.
    """
    known = registry.entries("backbones")
    if name in known and name != "hf":
        opener: Opener = registry.load("backbones", name)()
        return opener.open(name, config)
    if "/" not in name and not Path(name).exists() and (hint := did_you_mean(name, known)):
        raise UsageError(f"unknown backbone '{name}'", f"known backbones: {', '.join(sorted(known))}", hint)
    opener = registry.load("backbones", "hf")()
    return opener.open(name, config)


def from_folder(name: str, folder: Path) -> Backbone:
    """A text encoder in the layout of `save_pretrained`.

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
    weights = {key: shape for file in sorted(folder.glob("*.safetensors")) for key, shape in shapes(file).items()}
    return Backbone(
        name=name,
        modality="text",
        path=folder,
        pooling=_pooling(folder, weights),
        weights_hash=_hash(folder.resolve()),
        parameters=sum(math.prod(shape) for shape in weights.values()),
    )


def shapes(file: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors in a safetensors file, from its header alone.

    Raises:
        EnvironmentProblem: it is none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as weights:
            return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise EnvironmentProblem(
            f"{file.name} is no safetensors file", f"{file}: {error}", "Fetch it again."
        ) from error


def _pooling(folder: Path, weights: dict[str, list[int]]) -> Literal["mean", "cls", "pooler"]:
    """What it was trained with: sentence-transformers say so; a pooler in the weights was trained; else the mean."""
    sentence = folder / "1_Pooling" / "config.json"
    if sentence.is_file():
        return "cls" if json.loads(sentence.read_text()).get("pooling_mode_cls_token") else "mean"
    return "pooler" if any("pooler.dense.weight" in key for key in weights) else "mean"


@cache
def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    files = {file for pattern in (*WEIGHT_FILES, *TEXT_FILES) for file in folder.glob(pattern)}
    for file in sorted(files, key=lambda f: f.name):
        digest.update(f"{file.name}\x00{sha256(file)}\x00".encode())
    return digest.hexdigest()


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
