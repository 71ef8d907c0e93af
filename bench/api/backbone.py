"""Backbones: networks by name, found and hashed at plan time, loaded or built only to train."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeVar

import msgspec

from bench.api.task import Modality, TaskSpec
from bench.config.sections import BackboneConfig, HeadConfig
from bench.core.registry import import_target
from bench.records.schema import ParentRun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bench.api.network import Network

C = TypeVar("C", bound=BackboneConfig)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """An opened backbone: its files are found and hashed, and nothing is loaded.

    Attributes:
        name: as given on the command line; for a directory its last part.
        modalities: of the inputs that it reads.
        loader: `module:function` that loads or builds the network, called as `load` says.
        weights_hash: sha256 over the content of weights, configuration and tokenizer files; for a network that is
            built, over its name and options (the seed decides the rest).
        parameters: numbers in the weight files; None for a network that is built, whose size depends on data.
        pretrained: whether its weights were trained before.
        path: the folder of weights, configuration and tokenizer; None where there is none.
        max_length: tokens that a text may have; None where no number is known.
        pooling: default pooling of its token features into one vector.
        config: its options, `--set backbone.key=value`.
        parent: the run that trained it.
    """

    name: str
    modalities: tuple[Modality, ...]
    loader: str
    weights_hash: str
    parameters: int | None = None
    pretrained: bool = True
    path: Path | None = None
    max_length: int | None = None
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    config: BackboneConfig = field(default_factory=BackboneConfig)
    parent: ParentRun | None = None

    def load(self, *, task: TaskSpec, head: HeadConfig, seed: int) -> Network:
        """Load or build the network: called with a batch's inputs it returns pooled features (B, `width`).

        `task` has the shape of its inputs, `head` may choose the `pooling`, and `seed` decides everything random in a
        network that is built. The loader is called with this backbone and the same arguments.

        Raises:
            UsageError: options that do not fit the task's inputs.
        """
        return import_target(self.loader)(self, task=task, head=head, seed=seed)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load its tokenizer by transformers."""
        return load_tokenizer(str(self.path))

    def config_as(self, kind: type[C]) -> C:
        """Return the options as the class that the backbone's opener declares."""
        assert isinstance(self.config, kind), f"{self.name} was opened with {type(self.config).__name__}"
        return self.config

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values, from which `from_json` makes an equal Backbone."""
        kind = type(self.config)
        return {**msgspec.to_builtins(self, enc_hook=str), "config_class": f"{kind.__module__}:{kind.__name__}"}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Backbone:
        """Make the Backbone that `to_json` wrote."""
        backbone = msgspec.convert(data, cls, dec_hook=lambda kind, value: kind(value))
        return replace(backbone, config=msgspec.convert(data["config"], import_target(str(data["config_class"]))))


class Opener(Protocol):
    """The interface of a registry entry of kind `backbones`: a class with options and one method."""

    Config: ClassVar[type[BackboneConfig]]
    """`BackboneConfig`, or a dataclass that adds to it: `--set backbone.key=value`."""

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        """Find and hash the backbone, or describe the network that is built; `config` is of the class `Config`.

        Raises:
            EnvironmentProblem: it is not there, or its bytes are not the expected ones.
        """
        ...


def built(name: str, config: BackboneConfig, loader: str, *modalities: Modality) -> Backbone:
    """Describe a network that `loader` builds from its options and the seed; it has no weights, so no revision."""
    config = replace(config, revision=BackboneConfig().revision)
    identity = json.dumps({"name": name, "options": config.to_json()}, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return Backbone(
        name=name, modalities=modalities, loader=loader, weights_hash=digest, pretrained=False, config=config
    )


class BuiltNetwork:
    """Base of openers whose network is built from its options and the run's seed: `loader` as in `Backbone`."""

    Config: ClassVar[type[BackboneConfig]]
    loader: ClassVar[str]
    modalities: ClassVar[tuple[Modality, ...]]

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        """Describe the network."""
        return built(name, config, self.loader, *self.modalities)


@cache
def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder by transformers, once per process; no code in the folder is run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False, local_files_only=True)
