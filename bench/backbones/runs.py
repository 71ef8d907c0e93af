"""The backbone that an earlier run trained: `--backbone runs:RUN`, from the folder of records (`--out`)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from bench.api.backbone import Backbone
from bench.api.task import Modality, TaskSpec
from bench.backbones import open_backbone
from bench.backbones.text_encoders import content_hash, from_folder
from bench.config.options import Value, options_of
from bench.config.sections import BackboneConfig, HeadConfig
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError
from bench.core.files import share, tensor_shapes
from bench.records import record
from bench.records.files import checked
from bench.records.schema import ParentRun

if TYPE_CHECKING:
    from torch import nn

    from bench.api.network import Network

FOLDER = "backbone"
"""Folder within a run's folder that `save` writes: the weights, and what is needed to build the network again."""
NETWORK, WEIGHTS = "network.json", "model.safetensors"


class SavedNetwork(msgspec.Struct, frozen=True):
    """What `network.json` says of a network that is no text encoder: how to build it again, and its inputs."""

    name: str
    modalities: tuple[Modality, ...]
    shape: tuple[int, ...]
    options: dict[str, Value]


class Run:
    """The trained network of a finished run: `mae`, `mlm` and `dropout` keep it, `full` with `--set runtime.save=all`.

    The start of a run id is enough. The records of runs that continue from it name the whole chain.
    """

    Config: ClassVar[type] = BackboneConfig

    def __init__(self, runs: Path) -> None:
        self.runs = runs

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        """Find the run and hash its network.

        Raises:
            UsageError: no run, or several runs, match the name.
            EnvironmentProblem: the run is not finished, or kept no network, or it is not as the run wrote it.
        """
        run = record.find(self.runs, name.partition(":")[2])
        folder = checked(run, record.folder(self.runs, run.run_id), FOLDER)
        if run.state != "done" or not folder.is_dir():
            raise EnvironmentProblem(
                f"run {run.run_id} has no trained backbone",
                f"it is {run.state}; {run.spec.method} with runtime.save={run.spec.options.runtime.get('save')}",
                "Take a finished run of mae, mlm or dropout, or run its command with another --out and "
                "--set runtime.save=all.",
            )
        parent = ParentRun(
            run_id=run.run_id,
            group_id=run.group_id,
            method=run.spec.method,
            task=run.spec.task,
            backbone=run.backbone.name,
            parent=run.backbone.parent,
        )
        full_name = f"runs:{run.run_id}"
        if not (folder / NETWORK).is_file():
            return from_folder(full_name, folder, config, parent=parent)
        saved, trained = _read(folder)
        if not (folder / WEIGHTS).is_file():
            raise _broken(folder / WEIGHTS, "it is not there, or not a regular file")
        return Backbone(
            name=full_name,
            modalities=saved.modalities,
            loader="bench.backbones.runs:load",
            path=folder,
            weights_hash=content_hash(folder.resolve()),
            parameters=sum(math.prod(shape) for shape in tensor_shapes(folder / WEIGHTS).values()),
            config=trained.changed(dropout=config.dropout) if config.dropout else trained,
            parent=parent,
        )


def load(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> Network:
    """Build the network that the run trained, and load its weights.

    Raises:
        UsageError: it was trained on inputs of another shape.
        EnvironmentProblem: the weights are not those of the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    assert backbone.path is not None
    (saved, _), config = _read(backbone.path), backbone.config
    if saved.shape != task.shape:
        raise UsageError(
            f"{backbone.name} does not fit {task.name}",
            f"it was trained on inputs {_size(saved.shape)}, these are {_size(task.shape)}",
            "Give both tasks the same size: --set task.size=N --set task.mode=grey|rgb.",
        )
    if "pretrained" in options_of(type(config)):
        config = config.changed(pretrained=False)  # its weights are loaded below
    network = open_backbone(saved.name, config).load(task=task, head=head, seed=seed)
    try:
        network.load_state_dict(load_file(backbone.path / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:  # the first line names the class alone
        raise _broken(backbone.path / WEIGHTS, " ".join(str(error).split())[:300]) from error
    return network


def save(network: nn.Module, backbone: Backbone, task: TaskSpec, folder: Path) -> None:
    """Write the files that `Run` opens: those of `save_pretrained` for a text encoder, else weights and options."""
    if "text" in backbone.modalities:
        from bench.api.network import SavesPretrained

        assert isinstance(network, SavesPretrained)
        network.save(folder)
        share(*(file for file in folder.iterdir() if file.is_file()))
        return
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file({n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}, folder / WEIGHTS)
    share(folder / WEIGHTS)
    saved = SavedNetwork(saved_name(backbone), backbone.modalities, task.shape, backbone.config.to_json())
    (folder / NETWORK).write_text(json.dumps(msgspec.to_builtins(saved), indent=1) + "\n")


def saved_name(backbone: Backbone) -> str:
    """Return the registered name of a network that is no text encoder: its own, or that of the run that it is."""
    return _read(backbone.path)[0].name if backbone.parent and backbone.path else backbone.name


def _read(folder: Path) -> tuple[SavedNetwork, BackboneConfig]:
    """Return what `network.json` says, and its options as the class that the network's opener declares."""
    file = folder / NETWORK
    try:
        saved = msgspec.json.decode(file.read_bytes(), type=SavedNetwork)
        registered = registry.opener(saved.name)
        if registered in ("hf", "runs:"):
            raise ValueError(f"'{saved.name}' is not a network that is built")
        kind: type[BackboneConfig] = registry.load_config("backbones", registered)
        if unknown := saved.options.keys() - options_of(kind).keys():
            raise ValueError(f"'{saved.name}' has no option {', '.join(sorted(unknown))}")
        return saved, msgspec.convert(saved.options, kind)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError, UsageError) as error:
        known = error.line() if isinstance(error, UsageError) else str(error) or type(error).__name__
        raise _broken(file, known) from error


def _broken(file: Path, known: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the network that a run kept is broken: {file}",
        known,
        "Run its command again with another --out and --set runtime.save=all.",
    )


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "of text"
