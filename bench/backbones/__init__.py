"""Networks by name: found and hashed at plan time, loaded or built only to train."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from bench.config.sections import BackboneConfig, HeadConfig
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from bench.api.task import TaskSpec

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
        modalities: what it reads.
        loader: `module:function` that loads or builds the network, called as `load` says.
        weights_hash: sha256 over weights, configuration and tokenizer files, by their content; of a network that is
            built, over its name and options (the seed says the rest).
        parameters: numbers in the weight files; None for a network that is built, as its size depends on the data.
        pretrained: whether it starts from anything that was learned.
        path: the folder of weights, configuration and tokenizer; None where there is none.
        pooling: how its token features become one vector, by default.
        options: its own options, `--set backbone.key=value`, complete.
        parent: `{run_id, group_id, method, task, backbone, parent}` of the run that trained it.
    """

    name: str
    modalities: tuple[Literal["text", "image", "vector"], ...]
    loader: str
    weights_hash: str
    parameters: int | None = None
    pretrained: bool = True
    path: Path | None = None
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parent: Mapping[str, Any] | None = None

    def load(self, *, task: TaskSpec, head: HeadConfig, seed: int) -> nn.Module:
        """The network: called with a batch's inputs it gives pooled features (B, `width`).

        Its loader is called with this backbone and the same arguments.

        Args:
            task: what it will read (`shape`), and how many outputs its head will have.
            head: options of the head; `pooling` is the network's matter.
            seed: of everything random in a network that is built.

        Raises:
            UsageError: options that do not fit the task's inputs.
        """
        module, _, function = self.loader.partition(":")
        return getattr(importlib.import_module(module), function)(self, task=task, head=head, seed=seed)

    def tokenizer(self) -> Any:
        """Its tokenizer, by transformers."""
        from bench.backbones.encoder import load_tokenizer

        return load_tokenizer(str(self.path))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the same Backbone back."""
        return {**asdict(self), "path": str(self.path) if self.path else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Backbone:
        """The Backbone that `to_json` wrote."""
        path = Path(data["path"]) if data["path"] else None
        fields: dict[str, Any] = {**data, "path": path, "modalities": tuple(data["modalities"])}
        return cls(**fields)


class Opener(Protocol):
    """What a registry entry of kind `backbones` is: a class with options and this one method."""

    Config: ClassVar[type]
    """`BackboneConfig`, or a dataclass that adds to it: `--set backbone.key=value`."""

    def open(self, name: str, config: Any) -> Backbone:
        """Find and hash it, or say what is built.

        Raises:
            EnvironmentProblem: it is not there, or its bytes are not those expected.
        """
        ...


def open_backbone(name: str, options: Mapping[str, Any], *, runs: Path = Path("runs")) -> Backbone:
    """A registered name, `prefix:…`, a local directory, or a hub id.

    Args:
        name: as typed.
        options: of the namespace `backbone`, complete.
        runs: folder in which `runs:RUN` looks.

    Raises:
        UsageError: a bare word that is nearly a registered name.
        EnvironmentProblem: not there.
    """
    known, registered = registry.entries("backbones"), registry.opener(name)
    if registered == "hf" and "/" not in name and not Path(name).exists() and (hint := did_you_mean(name, known)):
        raise UsageError(f"unknown backbone '{name}'", f"known backbones: {', '.join(sorted(known))}", hint)
    kind: type[Any] = registry.load("backbones", registered)
    opener: Opener = kind(runs) if registered == "runs:" else kind()
    return opener.open(name, kind.Config(**options))


def built(name: str, config: BackboneConfig, loader: str, *modalities: Literal["text", "image", "vector"]) -> Backbone:
    """A network that `loader` builds from its options and the seed; nothing of it was learned, so none of it has a
    revision.
    """
    options = asdict(replace(config, revision=BackboneConfig().revision))
    what = json.dumps({"name": name, "options": options}, sort_keys=True)
    digest = hashlib.sha256(what.encode()).hexdigest()
    return Backbone(
        name=name, modalities=modalities, loader=loader, weights_hash=digest, pretrained=False, options=options
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
    weights = {key: shape for file in sorted(folder.glob("*.safetensors")) for key, shape in shapes(file).items()}
    return Backbone(
        name=name,
        modalities=("text",),
        loader="bench.backbones.encoder:load",
        path=folder,
        pooling=_pooling(folder, weights),
        weights_hash=content_hash(folder.resolve()),
        parameters=sum(math.prod(shape) for shape in weights.values()),
        options=asdict(config or BackboneConfig()),
        **more,
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
def content_hash(folder: Path) -> str:
    """sha256 over names and bytes of the files that decide what a backbone computes."""
    digest = hashlib.sha256()
    files = {file for pattern in (*WEIGHT_FILES, *TEXT_FILES) for file in folder.glob(pattern)}
    for file in sorted(files, key=lambda f: f.name):
        digest.update(f"{file.name}\x00{sha256(file)}\x00".encode())
    return digest.hexdigest()


def sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
