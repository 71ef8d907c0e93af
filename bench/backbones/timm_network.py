"""timm's image networks without their classifiers: images to pooled features."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vgg import VGG
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.api.backbone import Backbone
from bench.api.dropout import set_dropout
from bench.api.network import Network
from bench.api.task import TaskSpec
from bench.backbones.image_networks import WEIGHTS, ResNet18Config, VGG11Config, ViTConfig
from bench.backbones.seeding import seeded
from bench.config.sections import HeadConfig
from bench.core.errors import EnvironmentProblem, UsageError
from bench.core.files import tensor_shapes

Shape = tuple[int, int, int]
"""(C, H, W) of an image."""
MAX_PATCHES = 1024
"""Most patches of an image that are chosen by default; attention costs their square."""


class TimmNet(Network):
    """Images (B, C, H, W) → pooled features (B, D), as timm's `forward_head(…, pre_logits=True)` gives them.

    `model` is timm's network, built with `num_classes=0`; `width` is D, measured with an image of zeros.

    Raises:
        UsageError: the image is too small for the network, or there is no dropout to set.
    """

    def __init__(self, model: Any, shape: Shape, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.model = model
        try:
            with torch.no_grad():
                self.width = self.eval()(torch.zeros(1, *shape)).shape[1]
        except (RuntimeError, AssertionError, ArithmeticError) as error:
            raise _wrong_size(type(model).__name__, shape, error) from error
        self.train()
        if not set_dropout(model, dropout) and dropout:
            raise UsageError(
                f"backbone.dropout={dropout:g} would have no effect",
                f"timm's {type(model).__name__} has no dropout",
                "Leave it out; head.dropout acts on the pooled features.",
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_head(self.model.forward_features(x), pre_logits=True)

    @property
    def blocks(self) -> list[nn.Module]:
        """Transformer or residual blocks in order, over all stages; none in a network that has neither."""
        blocks = getattr(self.model, "blocks", None)
        if isinstance(blocks, nn.Sequential | nn.ModuleList):
            return _flat(blocks)
        stages = getattr(self.model, "stages", None) or [getattr(self.model, f"layer{i}", ()) for i in range(1, 5)]
        return [block for stage in stages for block in _flat(getattr(stage, "blocks", stage))]


def image_shape(task: TaskSpec, backbone: str, *, minimum: int = 1) -> Shape:
    """Return (C, H, W); raises UsageError if a side is below `minimum`, the least that the network accepts."""
    channels, height, width = task.shape
    if min(height, width) < minimum:
        raise UsageError(
            f"backbone '{backbone}' needs images of at least {minimum}×{minimum}",
            f"those of {task.name} are {height}×{width}",
            "Choose --backbone vit, mlp or dln for such small images.",
        )
    return channels, height, width


def patch_size(height: int, width: int, patch: int = 0) -> int:
    """Return the side of a ViT's square patches, in pixels: `patch` itself where it fits; for 0 one that fits.

    That is the largest common divisor of both sides which is at most 16 and gives at least 4×4 patches: 2 for 8×8, 7
    for 28×28, 8 for 32×32, 16 for 64×64 and 224×224.

    Raises:
        UsageError: `patch` does not divide the sides, or no such divisor gives at most 1024 patches.
    """
    sides = f"images of {height}×{width} pixels"
    divisors = [p for p in range(1, gcd(height, width) + 1) if height % p == width % p == 0]
    if patch:
        if patch not in divisors:
            known = f"patches that fit: {', '.join(map(str, divisors))}"
            raise UsageError(f"backbone.patch={patch} does not divide {sides}", known, "Choose one of these.")
        return patch
    best = max([p for p in divisors if p <= min(16, min(height, width) // 4)], default=1)
    if (count := height * width // best**2) > MAX_PATCHES:
        raise UsageError(
            f"no patch fits {sides} well",
            f"{best} pixels would give {count} patches; the default takes at most {MAX_PATCHES}",
            f"Resize the images, or use --set backbone.patch={best}.",
        )
    return best


def load_vgg11(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Build the eight convolutions of a `VGG11` and the mean over the last feature map.

    The head replaces its three dense layers, which timm makes for 224×224: 120 of 129 million parameters. The five max
    pools round up, so that 28×28 ends at 1×1 as 32×32 does; sizes that 32 divides are not affected.
    """
    config, shape = backbone.config_as(VGG11Config), image_shape(task, backbone.name, minimum=8)
    stages = [[1], [2], [4, 4], [8, 8], [8, 8]]
    plan = [entry for stage in stages for entry in [*(config.width * k for k in stage), "M"]]
    norm = nn.BatchNorm2d if config.norm == "batch" else None
    with seeded(seed, "vgg11"):
        # timm cannot leave its dense layers out; this ratio makes them small until they are removed
        model = VGG(plan, 0, shape[0], mlp_ratio=1 / 4096, norm_layer=norm)
    model.pre_logits = nn.Identity()
    model.num_features = model.head_hidden_size = 8 * config.width
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    return TimmNet(model, shape, dropout=config.dropout)


def load_resnet18(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Build a `ResNet18`; every stem starts as timm's, N(0, 2/fan_out)."""
    config, shape = backbone.config_as(ResNet18Config), image_shape(task, backbone.name, minimum=8)
    with seeded(seed, "resnet18"):
        model = timm.create_model("resnet18", num_classes=0, in_chans=shape[0])
        if config.stem != "imagenet":
            stride = 2 if config.stem == "small" else 1
            model.conv1 = nn.Conv2d(shape[0], 64, 3, stride=stride, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
    return TimmNet(model, shape, dropout=config.dropout)


def load_vit(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Raises UsageError if the patch does not divide the image, or the heads do not divide the width."""
    config, shape = backbone.config_as(ViTConfig), image_shape(task, backbone.name)
    if config.width % config.heads:
        raise UsageError(
            f"backbone.heads={config.heads} does not divide backbone.width={config.width}",
            "every head gets width / heads numbers of a token",
            "Change one of them.",
        )
    with seeded(seed, "vit"):
        model = VisionTransformer(
            img_size=shape[1:],
            patch_size=patch_size(shape[1], shape[2], config.patch),
            in_chans=shape[0],
            num_classes=0,
            global_pool="token" if config.pool == "token" else "avg",
            class_token=config.pool == "token",
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
        )
    return TimmNet(model, shape, dropout=config.dropout)


def load_timm(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Build a `Timm` network, random or with the weights of `backbone.path`, a file or a folder.

    Where the network is made for one size of image (ViT, Swin), timm resamples the position embedding of the weights;
    for other channels it sums or repeats those of the first convolution.

    Raises:
        UsageError: the network does not accept the images.
        EnvironmentProblem: the weights belong to another network.
    """
    shape = image_shape(task, backbone.name)
    architecture, weights = backbone.name.removeprefix("timm:"), backbone.path
    published = timm.get_pretrained_cfg(architecture)
    sized = {"img_size": shape[1:]} if published is not None and published.fixed_input_size else {}
    build = partial(timm.create_model, num_classes=0, in_chans=shape[0], **sized)
    try:
        with seeded(seed, "timm"):
            model = build(architecture)
    except (AssertionError, ArithmeticError) as error:  # of XCiT and EfficientViT, for images that are too small
        raise _wrong_size(architecture, shape, error) from error
    _check_patches(model, shape)
    if weights is not None:
        name = f"local-dir:{weights}" if weights.is_dir() else architecture
        file = {} if weights.is_dir() else {"pretrained_cfg_overlay": {"file": str(weights), "custom_load": False}}
        random = model
        with seeded(seed, "timm"):
            try:
                model = build(name, pretrained=True, **file)
            except (RuntimeError, KeyError, ValueError) as error:
                raise _wrong_weights(architecture, weights, str(error).splitlines()[0]) from error
        if missing := _missing(model, random, weights / WEIGHTS if weights.is_dir() else weights):
            raise _wrong_weights(architecture, weights, f"it has no tensor for {', '.join(missing)[:300]}")
    return TimmNet(model, shape, dropout=backbone.config.dropout)


def _flat(blocks: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the blocks of a list of blocks, or of a list of such lists."""
    parts = [_flat(b) if isinstance(b, nn.Sequential | nn.ModuleList) else [b] for b in blocks]
    return [block for part in parts for block in part]


def _wrong_size(network: str, shape: Shape, error: Exception) -> UsageError:
    return UsageError(
        f"timm's {network} does not accept images of {shape[1]}×{shape[2]}",
        str(error).splitlines()[0],
        "Give the images another size, or choose another backbone.",
    )


def _check_patches(model: nn.Module, shape: Shape) -> None:
    """Refuse patches that do not divide the image: timm itself would ignore the border that no whole patch covers.

    Patches that overlap, as PVTv2's do, cover it.
    """
    conv = getattr(getattr(model, "patch_embed", None), "proj", None)
    if not isinstance(conv, nn.Conv2d) or conv.stride != conv.kernel_size:
        return
    patch = conv.kernel_size
    if shape[1] % patch[0] or shape[2] % patch[1]:
        raise UsageError(
            f"patches of {patch[0]}×{patch[1]} do not tile images of {shape[1]}×{shape[2]}",
            f"timm's {type(model).__name__} would ignore the rest",
            "Resize the images, or take a network whose patches fit: --backbone vit.",
        )


def _missing(loaded: nn.Module, random: nn.Module, weights: Path) -> list[str]:
    """Return the tensors that the weights do not hold: timm ignores them, and they keep their start.

    Tensors drawn at random show it by their values. Those that start as a constant, of norms and biases, show it by
    their names, if the weights name all others as timm does and not as another library.
    """
    drawn = {name: p for name, p in random.named_parameters() if p.numel() > 1 and bool((p != p.flatten()[0]).any())}
    parameters = dict(loaded.named_parameters())
    if unchanged := [name for name, p in drawn.items() if torch.equal(parameters[name], p)]:
        return unchanged
    stored = tensor_shapes(weights)
    if not drawn.keys() <= stored.keys():
        return []
    counters = ".num_batches_tracked"  # of BatchNorm: of no use in evaluation, so not always kept
    return [name for name in loaded.state_dict() if name not in stored and not name.endswith(counters)]


def _wrong_weights(architecture: str, weights: Path, known: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the weights are not those of timm's {architecture}",
        f"{weights}: {known}",
        "Give the weights of this network, or name the network that they belong to: --backbone timm:NAME.",
    )
