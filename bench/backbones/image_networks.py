"""Image networks of timm: ViT, ResNet18 and VGG11 for images of any size, and `timm:NAME` for every other one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.api.backbone import Backbone, BuiltNetwork, built
from bench.backbones.text_encoders import content_hash
from bench.config.options import option
from bench.config.sections import BackboneConfig
from bench.core import hub
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean
from bench.core.files import read_object, sha256, tensor_shapes
from bench.records.files import check_named

WEIGHTS = "model.safetensors"
TIMM_LOADER = "bench.backbones.timm_network:load_timm"


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BackboneConfig):
    patch: int = option(
        0,
        "Side of a patch in pixels, which must divide height and width; 0 takes the largest up to 16 that "
        "leaves 4×4 patches: 2 for 8×8, 7 for 28×28, 8 for 32×32, 16 for 224×224.",
        at_least=0,
    )
    width: int = option(192, "Numbers per token.", at_least=1)
    depth: int = option(6, "Number of blocks.", at_least=1)
    heads: int = option(3, "Attention heads; they must divide the width.", at_least=1)
    pool: Literal["token", "mean"] = option(
        "token",
        "Features: the class token, normed, or the mean over all patches, normed; there is no class token then.",
    )


class ViT(BuiltNetwork):
    """timm's VisionTransformer (arXiv 2010.11929): pre-norm blocks, an MLP four times as wide, learned positions.

    It starts at random; its patches fit the images.
    """

    Config = ViTConfig
    loader = "bench.backbones.timm_network:load_vit"
    modalities = ("image",)


@dataclass(frozen=True, kw_only=True)
class ResNet18Config(BackboneConfig):
    stem: Literal["small", "cifar", "imagenet"] = option(
        "small",
        "small: 3×3 convolution of stride 2. cifar: 3×3 of stride 1. imagenet: 7×7 of stride 2, then a max "
        "pool of stride 2, as published for 224×224.",
    )


class ResNet18(BuiltNetwork):
    """timm's ResNet18 (arXiv 1512.03385), width 64 to 512, with a stem for small images, of 8×8 or more.

    It starts at random. The stem decides the cost, since it decides the size of the image in every stage. On 32×32
    `imagenet` leaves 1×1 to the last stage and `small` 2×2; `cifar`, the usual one for such images, leaves 4×4 and
    costs four times as much as `small`.
    """

    Config = ResNet18Config
    loader = "bench.backbones.timm_network:load_resnet18"
    modalities = ("image",)


@dataclass(frozen=True, kw_only=True)
class VGG11Config(BackboneConfig):
    width: int = option(
        64, "Channels of the first convolution; the others have 2, 4, 4, 8, 8, 8 and 8 times as many.", at_least=1
    )
    norm: Literal["batch", "none"] = option(
        "batch", "Batch norm after every convolution, or VGG11 as published, which takes a lower learning rate."
    )


class VGG11(BuiltNetwork):
    """timm's VGG11 (configuration A of arXiv 1409.1556) up to its last pooling, then the mean over the map.

    It starts at random and takes images of 8×8 or more. The head replaces its three dense layers, which have 120 of its
    133 million parameters and are made for 224×224.
    """

    Config = VGG11Config
    loader = "bench.backbones.timm_network:load_vgg11"
    modalities = ("image",)


@dataclass(frozen=True, kw_only=True)
class TimmConfig(BackboneConfig):
    pretrained: bool = option(
        False, "Start from timm's published weights; a tag behind the name chooses among several (`resnet18.a1_in1k`)."
    )
    weights: str = option(
        "", "Start from these: a folder in the layout of timm's hub repositories, or a .safetensors file."
    )


class Timm:
    """timm.create_model(NAME) without its classifier, pooled as timm pools it; its stem is the published one.

    It starts at random or from weights: of timm's repository on the Hugging Face hub (`pretrained`), of a folder in
    that layout (config.json and model.safetensors) or of a safetensors file (`weights`); nothing is unpickled. For
    images of another size than that of the weights timm resamples the position embedding, for other channels it sums or
    repeats the first convolution's.
    """

    Config = TimmConfig

    def open(self, name: str, config: TimmConfig) -> Backbone:
        """Hash the weights: their bytes decide the identity, and their place does not."""
        architecture = name.removeprefix("timm:")
        repository, file_name = _published_weights(architecture)
        if config.weights:
            path = _local_weights(architecture, Path(config.weights).expanduser())
        elif config.pretrained:
            path = _hub_weights(architecture, repository, file_name, config.revision)
        else:
            return built(name, config, TIMM_LOADER, "image")
        file = path / WEIGHTS if path.is_dir() else path
        return Backbone(
            name=name,
            modalities=("image",),
            loader=TIMM_LOADER,
            path=path,
            weights_hash=content_hash(path) if path.is_dir() else sha256(file),
            parameters=sum(math.prod(shape) for shape in tensor_shapes(file).values()),
            config=replace(config, pretrained=True, weights=""),
        )


def _published_weights(architecture: str) -> tuple[str, str]:
    """Return repository (`ID` or `ID@REVISION`) and file name of timm's weights on the hub; empty where it has none.

    Raises:
        UsageError: timm has no network, or no weights, of this name.
    """
    import timm

    if not timm.is_model(architecture) or ":" in architecture or "/" in architecture:
        names = timm.list_models()
        known = f"timm {timm.__version__} has {len(names)} networks, such as resnet18 and vit_tiny_patch16_224"
        hint = did_you_mean(architecture.partition(".")[0], names)
        raise UsageError(f"unknown backbone 'timm:{architecture}'", known, hint)
    base, _, tag = architecture.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = f"timm has weights of {base} with the tags {', '.join(tags) or '(none)'}"
        raise UsageError(f"unknown weights 'timm:{architecture}'", known, did_you_mean(tag, tags))
    published = timm.get_pretrained_cfg(architecture)
    open_clip = published is not None and (published.hf_hub_filename or "").startswith("open_clip")
    return (published.hf_hub_id or "") if published else "", f"open_clip_{WEIGHTS}" if open_clip else WEIGHTS


def _local_weights(architecture: str, path: Path) -> Path:
    check_named(path)
    if path.is_file() and path.suffix == ".safetensors":
        return path.resolve()
    missing = [name for name in ("config.json", WEIGHTS) if not (path / name).is_file()]
    if missing:
        absent = f"no {' and no '.join(missing)} in {path.resolve()}"
        raise EnvironmentProblem(
            f"there are no weights of timm's {architecture} in '{path}'",
            absent if path.is_dir() else "it is not a folder and not a .safetensors file",
            "Give a folder with config.json and model.safetensors, as on timm's hub, or a .safetensors file.",
        )
    stated = read_object(path / "config.json", "Download it again.").get("architecture")
    if stated != architecture.partition(".")[0]:
        raise EnvironmentProblem(
            f"the weights are not those of timm's {architecture}",
            f"{path / 'config.json'}: architecture {stated!r}",
            f"Use --backbone timm:{stated}, or give other weights.",
        )
    return path.resolve()


def _hub_weights(architecture: str, repository: str, file: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    name, _, pinned = repository.partition("@")
    known = "timm names no repository on the hub for it"
    if name:
        try:
            return hub.cached_or_fetched(hf_hub_download, name, revision=pinned or revision, filename=file)
        except hub.HubUnavailable as error:
            known = f"{name}: {error.what}"
    raise EnvironmentProblem(
        f"timm's weights of {architecture} are not there",
        known,
        "Give them: --set backbone.weights=DIR|FILE.safetensors. Or start at random, without backbone.pretrained.",
    )
