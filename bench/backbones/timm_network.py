"""timm's image networks without their classifiers: images to pooled features."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vgg import VGG
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.api.dropout import set_dropout
from bench.api.network import Network
from bench.backbones.image_networks import ResNet18Config, TimmConfig, VGG11Config, ViTConfig
from bench.backbones.inputs import image_shape, patch_size
from bench.backbones.seeding import seeded
from bench.core.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.api.task import TaskSpec
    from bench.config.sections import HeadConfig

Shape = tuple[int, int, int]
"""(C, H, W) of an image."""


class TimmNet(Network):
    """Images (B, C, H, W) → pooled features (B, D), as timm's `forward_head(…, pre_logits=True)` gives them.

    Attributes:
        model: timm's network, built with `num_classes=0`.
        width: D.
    """

    def __init__(self, model: nn.Module, shape: Shape, *, dropout: float = 0.0) -> None:
        """Measure D with an image of zeros.

        Raises:
            UsageError: the image is too small for the network, or there is no dropout to set.
        """
        super().__init__()
        self.model = model
        self.width = self._measure(shape)
        if not set_dropout(model, dropout) and dropout:
            raise UsageError(
                f"backbone.dropout={dropout:g} would have no effect",
                f"timm's {type(model).__name__} has no dropout",
                "Leave it out; head.dropout acts on the pooled features.",
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, D)."""
        model: Any = self.model
        return model.forward_head(model.forward_features(x), pre_logits=True)

    @property
    def blocks(self) -> list[nn.Module]:
        """Transformer or residual blocks in order, over all stages; none in a network that has neither."""
        model: Any = self.model
        if isinstance(found := getattr(model, "blocks", None), nn.Sequential | nn.ModuleList):
            return _flat(found)
        stages = getattr(model, "stages", None) or [getattr(model, f"layer{i}", ()) for i in range(1, 5)]
        return [block for stage in stages for block in _flat(getattr(stage, "blocks", stage))]

    @torch.no_grad()
    def _measure(self, shape: Shape) -> int:
        was = self.training
        try:
            return self.eval()(torch.zeros(1, *shape)).shape[1]
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"timm's {type(self.model).__name__} does not accept images of {shape[1]}×{shape[2]}",
                str(error).splitlines()[0],
                "Give the images another size, or choose another backbone.",
            ) from error
        finally:
            self.train(was)


def vgg11(shape: Shape, *, width: int, norm: Literal["batch", "none"], seed: int, dropout: float = 0.0) -> TimmNet:
    """Build VGG11's eight convolutions and the mean over the last feature map.

    The head replaces its three dense layers, which timm makes for 224×224: 120 of 129 million parameters. On 32×32 the
    last feature map is 1×1 anyway. The five max pools round up, so that 28×28 ends at 1×1 too; sizes that 32 divides
    are not affected.
    """
    stages = [[1], [2], [4, 4], [8, 8], [8, 8]]
    plan = [entry for stage in stages for entry in [*(width * k for k in stage), "M"]]
    with seeded(seed, "vgg11"):
        # timm cannot leave its dense layers out; this ratio makes them small until they are removed
        model = VGG(plan, 0, shape[0], mlp_ratio=1 / 4096, norm_layer=nn.BatchNorm2d if norm == "batch" else None)
    model.pre_logits = nn.Identity()
    model.num_features = model.head_hidden_size = 8 * width
    for module in model.features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    return TimmNet(model, shape, dropout=dropout)


def resnet18(shape: Shape, *, stem: Literal["small", "cifar", "imagenet"], seed: int, dropout: float = 0.0) -> TimmNet:
    """Build timm's ResNet of two BasicBlocks in each of four stages; every stem starts as timm's, N(0, 2/fan_out)."""
    with seeded(seed, "resnet18"):
        model = ResNet(cast(Any, BasicBlock), (2, 2, 2, 2), num_classes=0, in_chans=shape[0])
        if stem != "imagenet":
            stride = 2 if stem == "small" else 1
            model.conv1 = nn.Conv2d(shape[0], 64, 3, stride=stride, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
    return TimmNet(model, shape, dropout=dropout)


def vit(
    shape: Shape,
    *,
    patch: int,
    width: int,
    depth: int,
    heads: int,
    pool: Literal["token", "mean"],
    seed: int,
    dropout: float = 0.0,
) -> TimmNet:
    """Build timm's VisionTransformer with pre-norm blocks, an MLP ratio of 4 and learned positions.

    Raises:
        UsageError: the patch does not divide the image, or the heads do not divide the width.
    """
    if width % heads:
        raise UsageError(
            f"backbone.heads={heads} does not divide backbone.width={width}",
            "every head gets width / heads numbers of a token",
            "Change one of them.",
        )
    with seeded(seed, "vit"):
        model = VisionTransformer(
            img_size=shape[1:],
            patch_size=patch_size(shape[1], shape[2], patch),
            in_chans=shape[0],
            num_classes=0,
            global_pool="token" if pool == "token" else "avg",
            class_token=pool == "token",
            embed_dim=width,
            depth=depth,
            num_heads=heads,
        )
    return TimmNet(model, shape, dropout=dropout)


def any_timm(
    architecture: str, shape: Shape, *, seed: int, weights: Path | None = None, dropout: float = 0.0
) -> TimmNet:
    """Build any network of timm, random or with weights in safetensors.

    For images of another size than that of the weights: where the network is made for one size (ViT, Swin), timm
    resamples the position embedding; for other channels it sums or repeats those of the first convolution.

    Args:
        architecture: timm's name, with or without the tag of the weights.
        shape: (C, H, W).
        seed: of every tensor without given weights.
        weights: a file, or a folder in the layout of timm's hub repositories; None starts at random.
        dropout: rate of every dropout in it.

    Raises:
        UsageError: the network does not accept the images.
        EnvironmentProblem: the weights belong to another network.
    """
    published = timm.get_pretrained_cfg(architecture)
    sized = {"img_size": shape[1:]} if published is not None and published.fixed_input_size else {}
    build = partial(timm.create_model, num_classes=0, in_chans=shape[0], **sized)
    with seeded(seed, "timm"):
        model = build(architecture)
    _check_patches(model, shape)
    if weights is not None:
        name = f"local-dir:{weights}" if weights.is_dir() else architecture
        file = {} if weights.is_dir() else {"pretrained_cfg_overlay": {"file": str(weights), "custom_load": False}}
        with seeded(seed, "timm"):
            try:
                loaded = build(name, pretrained=True, **file)
            except (RuntimeError, KeyError, ValueError) as error:
                raise _wrong_weights(architecture, weights, str(error).splitlines()[0]) from error
        if missing := _unchanged(loaded, model):
            raise _wrong_weights(architecture, weights, f"it has no tensor for {', '.join(missing)[:300]}")
        model = loaded
    return TimmNet(model, shape, dropout=dropout)


def _flat(blocks: Any) -> list[nn.Module]:
    """Return the blocks of a list of blocks, or of a list of such lists."""
    parts = [_flat(b) if isinstance(b, nn.Sequential | nn.ModuleList) else [b] for b in blocks]
    return [block for part in parts for block in part]


def _check_patches(model: Any, shape: Shape) -> None:
    """Refuse patches that do not divide the image: timm itself would ignore the border that no whole patch covers."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch is not None and (shape[1] % patch[0] or shape[2] % patch[1]):
        raise UsageError(
            f"patches of {patch[0]}×{patch[1]} do not tile images of {shape[1]}×{shape[2]}",
            f"timm's {type(model).__name__} would ignore the rest",
            "Resize the images, or take a network whose patches fit: --backbone vit.",
        )


def _unchanged(loaded: nn.Module, random: nn.Module) -> list[str]:
    """Return the tensors that still have their random start: timm ignores tensors that the weights do not hold."""
    drawn = {
        name: p for name, p in random.named_parameters() if p.numel() > 1 and not bool((p == p.flatten()[0]).all())
    }
    return [name for name, p in loaded.named_parameters() if name in drawn and torch.equal(p, drawn[name])]


def _wrong_weights(architecture: str, weights: Path, known: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the weights are not those of timm's {architecture}",
        f"{weights}: {known}",
        "Give the weights of this network, or name the network that they belong to: --backbone timm:NAME.",
    )


def load_vgg11(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Build a `VGG11` for the images of `task`."""
    config = backbone.config_as(VGG11Config)
    shape = image_shape(task, backbone.name, minimum=8)
    return vgg11(shape, width=config.width, norm=config.norm, dropout=config.dropout, seed=seed)


def load_resnet18(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Build a `ResNet18` for the images of `task`."""
    config = backbone.config_as(ResNet18Config)
    shape = image_shape(task, backbone.name, minimum=8)
    return resnet18(shape, stem=config.stem, dropout=config.dropout, seed=seed)


def load_vit(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Build a `ViT` for the images of `task`."""
    config = backbone.config_as(ViTConfig)
    return vit(
        image_shape(task, backbone.name),
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        pool=config.pool,
        dropout=config.dropout,
        seed=seed,
    )


def load_timm(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> TimmNet:
    """Build a `Timm` network for the images of `task`, with its weights if it has any."""
    config = backbone.config_as(TimmConfig)
    shape = image_shape(task, backbone.name)
    architecture = backbone.name.removeprefix("timm:")
    return any_timm(architecture, shape, weights=backbone.path, dropout=config.dropout, seed=seed)
