"""Runs on images as folders that timm and peft load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from torch import Tensor

from bench.api.peft import PeftAdapter, fill_folder
from bench.backbones.image_networks import ResNet18Config, TimmConfig, ViTConfig
from bench.backbones.runs import saved_name
from bench.backbones.timm_network import TimmNet, image_shape, patch_size
from bench.core import registry
from bench.core.errors import UsageError
from bench.deploy import loaders
from bench.deploy.loaders import Loader
from bench.deploy.restore import FinishedRun
from bench.deploy.text import Head, save_bottlenecks

if TYPE_CHECKING:
    from bench.deploy.export import Write


def merged(run: FinishedRun, network: TimmNet, head: Head) -> Write:
    """Return the way to write a whole classifier of timm.

    Raises:
        UsageError: timm has no network that these weights belong to.
    """
    architecture, arguments = _timm_name(run)
    model: Any = timm.create_model(architecture, num_classes=run.task.num_classes, **arguments)
    missing, unexpected = model.load_state_dict(network.model.state_dict(), strict=False)
    classifier = model.get_classifier()
    if unexpected or len(missing) > 2 or tuple(classifier.weight.shape) != tuple(head.weight.shape):
        known = f"timm's {architecture} has other tensors, such as {[*unexpected, *missing][0]}"
        raise UsageError(f"{run.backbone.name} is no network of timm's", known, "Use `bench predict` with this run.")
    classifier.load_state_dict(head._asdict())

    def whole(folder: Path) -> Loader:
        timm.models.save_for_hf(
            model,
            str(folder),
            model_config={"label_names": list(run.labels)},
            model_args=arguments,
            safe_serialization=True,
            data_config=_data(run),
        )
        code = loaders.timm_merged(mode=_mode(run))
        return Loader(code=code, base="", local="", library="timm", architecture=architecture)

    return whole


def peft(run: FinishedRun, tensors: dict[str, Tensor], head: Head, base: str | None) -> Write:
    """Return the way to write an adapter of peft, with the head beside it.

    Raises:
        UsageError: peft has no equivalent of the method.
    """
    kind, config = registry.load("methods", run.spec.method), run.spec.options.method
    adapter: PeftAdapter = kind.peft(config, tensors)

    def with_head(folder: Path) -> Loader:
        fill_folder(folder, adapter.config, adapter.tensors, head._asdict(), {})
        create = _create(run, base)
        code = create and loaders.timm_base(create, mode=_mode(run), data=_data(run), kind="peft")
        return Loader(code=code, base=_base(run, base), local=str(run.backbone.path), library="peft")

    return with_head


def bottlenecks(run: FinishedRun, tensors: dict[str, Tensor], head: Head, base: str | None, *, channels: bool) -> Write:
    """Return the way to write bottleneck adapters; `channels` as in `loaders.timm_base`."""

    def with_head(folder: Path) -> Loader:
        save_bottlenecks(tensors, folder)
        head.save(folder)
        create, activation = _create(run, base), str(getattr(run.spec.options.method, "activation"))  # noqa: B009
        code = create and loaders.timm_base(
            create, mode=_mode(run), data=_data(run), kind="adapter", activation=activation, channels=channels
        )
        return Loader(code=code, base=_base(run, base), local=str(run.backbone.path), library="timm")

    return with_head


def _timm_name(run: FinishedRun) -> tuple[str, dict[str, Any]]:
    """Return the name in timm of the run's network, and what `timm.create_model` needs besides.

    Raises:
        UsageError: it has none: mlp, dln, vgg11, and a ResNet18 with a stem of this suite.
    """
    config, (channels, height, width) = run.backbone.config, image_shape(run.task, run.backbone.name)
    size = {"img_size": (height, width), "in_chans": channels}
    match config:
        case TimmConfig():
            name = saved_name(run.backbone).removeprefix("timm:")
            published = timm.get_pretrained_cfg(name)
            fixed = published is not None and published.fixed_input_size
            return name.partition(".")[0], size if fixed else {"in_chans": channels}
        case ViTConfig():
            more: Mapping[str, Any] = {
                "patch_size": patch_size(height, width, config.patch),
                "embed_dim": config.width,
                "depth": config.depth,
                "num_heads": config.heads,
                "global_pool": "token" if config.pool == "token" else "avg",
                "class_token": config.pool == "token",
            }
            return "vit_tiny_patch16_224", {**size, **more}
        case ResNet18Config(stem="imagenet"):
            return "resnet18", {"in_chans": channels}
        case _:
            raise UsageError(
                f"{run.backbone.name} has no form that another library loads",
                "exports of images are vit, resnet18 with backbone.stem=imagenet, and networks of timm",
                "Use `bench predict` with this run.",
            )


def _create(run: FinishedRun, base: str | None) -> str:
    """Return the call that makes the network that the run started from; empty where only this suite can."""
    if not isinstance(run.backbone.config, TimmConfig) or not run.backbone.pretrained or run.backbone.parent:
        return ""
    name, arguments = run.backbone.name.removeprefix("timm:"), _timm_name(run)[1]
    values = ", ".join(f"{key}={value!r}" for key, value in {"num_classes": 0, **arguments}.items())
    path = run.backbone.path
    if path is None or base or not _is_local(run):
        return f'timm.create_model("{name}", pretrained=True, {values})'
    if path.is_dir():
        return f'timm.create_model("local-dir:" + {loaders.BASE}, pretrained=True, {values})'
    overlay = f'{{"file": {loaders.BASE}, "custom_load": False}}'
    return f'timm.create_model("{name}", pretrained=True, {values}, pretrained_cfg_overlay={overlay})'


def _is_local(run: FinishedRun) -> bool:
    return any(word.startswith("backbone.weights=") for word in run.record.provenance.command)


def _base(run: FinishedRun, base: str | None) -> str:
    if base:
        return base
    return str(run.backbone.path) if _is_local(run) else run.backbone.name.removeprefix("timm:")


def _mode(run: FinishedRun) -> str:
    return "L" if run.task.shape[0] == 1 else "RGB"


def _data(run: FinishedRun) -> dict[str, Any]:
    """Return timm's description of the preparation: the shorter side resized, the centre cropped, normalised."""
    reading = run.record.source.reading
    return {
        "input_size": tuple(run.task.shape),
        "interpolation": "bilinear",
        "mean": tuple(reading["mean"]),
        "std": tuple(value or 1.0 for value in reading["std"]),
        "crop_pct": 1.0,
    }
