"""The backbone that an earlier run trained: `--backbone runs:RUN`, from the folder of records (`--out`)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.api.backbone import Backbone, Opener
from bench.api.task import TaskSpec
from bench.backbones.text_encoders import content_hash, from_folder
from bench.config.options import options_of
from bench.config.sections import BackboneConfig, HeadConfig
from bench.core import registry
from bench.core.errors import EnvironmentProblem, UsageError
from bench.core.files import tensor_shapes
from bench.records import record
from bench.records.schema import ParentRun

if TYPE_CHECKING:
    from torch import nn

    from bench.api.network import Network

FOLDER = "backbone"
"""Folder within a run's folder that `save` writes: the weights, and what is needed to build the network again."""
NETWORK, WEIGHTS = "network.json", "model.safetensors"


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
            EnvironmentProblem: the run is not finished, or kept no network.
        """
        there = record.find(self.runs, name.partition(":")[2])
        folder = record.folder(self.runs, there.run_id) / FOLDER
        if there.state != "done" or not folder.is_dir():
            raise EnvironmentProblem(
                f"run {there.run_id} has no trained backbone",
                f"it is {there.state}; {there.spec.method} with runtime.save={there.spec.options.runtime.get('save')}",
                "Take a finished run of mae, mlm or dropout, or run its command with another --out and "
                "--set runtime.save=all.",
            )
        parent = ParentRun(
            run_id=there.run_id,
            group_id=there.group_id,
            method=there.spec.method,
            task=there.spec.task,
            backbone=there.backbone.name,
            parent=there.backbone.parent,
        )
        full = f"runs:{there.run_id}"
        if not (folder / NETWORK).is_file():
            return from_folder(full, folder, config, parent=parent)
        saved = json.loads((folder / NETWORK).read_text())
        kind = registry.load_config("backbones", registry.opener(saved["name"]))
        network = kind(**saved["options"])
        return Backbone(
            name=full,
            modalities=tuple(saved["modalities"]),
            loader="bench.backbones.runs:load",
            path=folder,
            weights_hash=content_hash(folder.resolve()),
            parameters=sum(math.prod(shape) for shape in tensor_shapes(folder / WEIGHTS).values()),
            config=network if config.dropout == 0 else replace(network, dropout=config.dropout),
            parent=parent,
        )


def load(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> Network:
    """Build the network that the run trained, and load its weights.

    Raises:
        UsageError: it was trained on inputs of another shape.
    """
    from safetensors.torch import load_file

    assert backbone.path is not None
    saved = json.loads((backbone.path / NETWORK).read_text())
    if tuple(saved["shape"]) != task.shape:
        raise UsageError(
            f"{backbone.name} does not fit {task.name}",
            f"it was trained on inputs {_size(saved['shape'])}, these are {_size(task.shape)}",
            "Give both tasks the same size: --set task.size=N --set task.mode=grey|rgb.",
        )
    kind: type[Opener] = registry.load("backbones", registry.opener(saved["name"]))
    config = backbone.config
    if "pretrained" in options_of(type(config)):
        config = config.changed(pretrained=False)  # its weights are loaded below
    network = kind().open(saved["name"], config).load(task=task, head=head, seed=seed)
    network.load_state_dict(load_file(backbone.path / WEIGHTS))
    return network


def save(network: nn.Module, backbone: Backbone, task: TaskSpec, folder: Path) -> None:
    """Write the files that `Run` opens: those of `save_pretrained` for a text encoder, else weights and options."""
    if "text" in backbone.modalities:
        from bench.api.network import SavesPretrained

        assert isinstance(network, SavesPretrained)
        network.save(folder, backbone.tokenizer())
        return
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file({n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}, folder / WEIGHTS)
    name = backbone.name
    if backbone.parent and backbone.path:
        name = json.loads((backbone.path / NETWORK).read_text())["name"]
    saved = {"name": name, "modalities": backbone.modalities, "shape": task.shape, "options": backbone.config.to_json()}
    (folder / NETWORK).write_text(json.dumps(saved, indent=1) + "\n")


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "of text"
