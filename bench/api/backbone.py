"""What a backbone is: a network by name, found and hashed at plan time, loaded or built only to train."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import msgspec

from bench.config.sections import BackboneConfig, HeadConfig
from bench.core.registry import import_target
from bench.records.schema import ParentRun

if TYPE_CHECKING:
    from bench.api.network import Network
    from bench.api.task import TaskSpec

C = TypeVar("C", bound=BackboneConfig)


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
        config: its options, `--set backbone.key=value`.
        parent: the run that trained it.
    """

    name: str
    modalities: tuple[Literal["text", "image", "vector"], ...]
    loader: str
    weights_hash: str
    parameters: int | None = None
    pretrained: bool = True
    path: Path | None = None
    pooling: Literal["mean", "cls", "pooler"] = "mean"
    config: BackboneConfig = field(default_factory=BackboneConfig)
    parent: ParentRun | None = None

    def load(self, *, task: TaskSpec, head: HeadConfig, seed: int) -> Network:
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
        return load_tokenizer(str(self.path))

    def config_as(self, kind: type[C]) -> C:
        """Return the options as the class that the backbone's opener declares."""
        assert isinstance(self.config, kind), f"{self.name} was opened with {type(self.config).__name__}"
        return self.config

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, from which `from_json` makes an equal Backbone."""
        kind = type(self.config)
        place = f"{kind.__module__}:{kind.__name__}"
        parent = self.parent.to_json() if self.parent else None
        path = str(self.path) if self.path else None
        return {**asdict(self), "path": path, "config_class": place, "parent": parent}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Backbone:
        """Make the Backbone that `to_json` wrote."""
        fields: dict[str, Any] = {**data, "modalities": tuple(data["modalities"])}
        fields["path"] = Path(data["path"]) if data["path"] else None
        fields["config"] = import_target(fields.pop("config_class"))(**data["config"])
        fields["parent"] = msgspec.convert(data["parent"], ParentRun | None)
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


def built(name: str, config: BackboneConfig, loader: str, *modalities: Literal["text", "image", "vector"]) -> Backbone:
    """A network that `loader` builds from its options and the seed; nothing of it was learned, so none of it has a
    revision.
    """
    config = replace(config, revision=BackboneConfig().revision)
    identity = json.dumps({"name": name, "options": config.to_json()}, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return Backbone(
        name=name, modalities=modalities, loader=loader, weights_hash=digest, pretrained=False, config=config
    )


@cache
def load_tokenizer(path: str) -> Any:
    """Load the tokenizer of a folder by transformers, once per process."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, use_fast=True)
