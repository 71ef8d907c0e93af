"""A small vision transformer and small tasks of images, for the tests of masked autoencoders."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from bench.api.backbone import Backbone
from bench.api.task import Task, TaskSpec
from bench.config.sections import BackboneConfig, HeadConfig
from bench.records.data import Arrays, DataRequest, Dataset
from bench.records.spec import RunSpec
from tasks.io.arrays import ArrayDataModule

SHAPE = (2, 8, 12)
PATCH, WIDTH = 2, 16
PATCHES = 24
STRIPES = TaskSpec(
    name="toy/stripes",
    version=1,
    modality="image",
    num_classes=3,
    metrics=("accuracy",),
    primary=("accuracy",),
    shape=SHAPE,
)
SLOPES = TaskSpec(
    name="toy/slopes",
    version=1,
    modality="image",
    num_classes=0,
    metrics=("pearson",),
    primary=("pearson",),
    shape=SHAPE,
)
PICTURES = TaskSpec(
    name="toy/pictures",
    version=1,
    modality="image",
    num_classes=0,
    metrics=(),
    primary=(),
    shape=SHAPE,
    labelled=False,
)


GREY = replace(STRIPES, name="toy/grey", shape=(1, *SHAPE[1:]))

KINDS: dict[str, dict[str, Any]] = {
    "class token": {},
    "mean of patches": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 3},
    "positions of patches alone": {"reg_tokens": 2, "no_embed_class": True},
    "norm before the blocks": {"pre_norm": True},
    "mean and class token": {"global_pool": "avg"},
    "attention pool": {"global_pool": "map"},
    "dynamic size": {"dynamic_img_size": True},
    "no positions": {"pos_embed": "none"},
}
"""Options of timm's VisionTransformer that change what stands before, between or after the blocks."""


@dataclass(frozen=True, kw_only=True)
class ToyConfig(BackboneConfig):
    """Those options, with timm's defaults."""

    patch_size: int = PATCH
    class_token: bool = True
    global_pool: str = "token"
    reg_tokens: int = 0
    no_embed_class: bool = False
    pre_norm: bool = False
    dynamic_img_size: bool = False
    pos_embed: str = "learn"


OWN = {field.name for field in fields(ToyConfig)} - {field.name for field in fields(BackboneConfig)}


class Net(nn.Module):
    """A transformer of timm as the suite wraps it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.width = model, model.num_features

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_head(self.model.forward_features(x), pre_logits=True)


def network(*, shape: tuple[int, ...] = SHAPE, seed: int = 0, **options: Any) -> Net:
    """Two blocks of width 16 on patches of 2×2; options are those of timm's VisionTransformer."""
    given = {"patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": 2, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(
            timm.create_model("vit_tiny_patch16_224", img_size=shape[1:], in_chans=shape[0], num_classes=0, **given)
        )


def load(backbone: Backbone, *, task: TaskSpec, head: HeadConfig, seed: int) -> Net:
    rate, options = backbone.config.dropout, vars(backbone.config)
    own = {name: options[name] for name in OWN}
    return network(shape=task.shape, seed=seed, pos_drop_rate=rate, proj_drop_rate=rate, **own)


def backbone(**options: Any) -> Backbone:
    """One whose options are those of `network`."""
    return Backbone(
        name="toy-vit",
        modalities=("image",),
        loader="mae_lab:load",
        weights_hash="0" * 64,
        pretrained=False,
        config=ToyConfig(**options),
    )


def pictures(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Waves (N, 8, 12, 2) uint8 in three directions (N,), each with a phase and a length of its own, and some noise."""
    draw = np.random.default_rng(seed)
    kinds = draw.integers(3, size=count)
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    along = np.stack([rows, columns, rows + columns])[kinds]
    phase, length = draw.uniform(0, 2 * np.pi, (2, count, 1, 1)) * np.array([1, 0.3]).reshape(2, 1, 1, 1)
    waves = np.sin(along * (0.5 + length) + phase) + draw.normal(0, 0.1, along.shape)
    both = np.stack([waves, waves[:, ::-1]], axis=-1)
    return np.clip(128 + 60 * both, 0, 255).astype(np.uint8), kinds


class Pictures(Task):
    """A task that is already in memory."""

    def __init__(self, spec: TaskSpec, *, train: int = 34, dev: int = 48) -> None:
        self.spec = spec
        self.dataset = Dataset(
            train=self._rows(train, 1), evaluation={"dev": self._rows(dev, 2)}, source="embedded", revision="test"
        )

    def _rows(self, count: int, seed: int) -> Arrays:
        images, kinds = pictures(count, seed=seed)
        targets = kinds.astype(np.int64) if self.spec.num_classes else kinds.astype(np.float32) + 1
        return Arrays(inputs=images[..., : self.spec.shape[0]], targets=targets)

    def open(self, request: DataRequest) -> Dataset:
        return self.dataset

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> ArrayDataModule:
        def prepare(images: np.ndarray, index: np.ndarray, step: int) -> Tensor:
            return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) / 60 - 128 / 60

        return ArrayDataModule(self.spec, dataset, spec, prepare)


def tasks() -> dict[str, Any]:
    """Three classes, one number, and images alone."""
    return {spec.name: Pictures(spec) for spec in (STRIPES, SLOPES, PICTURES)}


def spec(lab: Any, **changes: Any) -> RunSpec:
    """Twenty steps of the method's defaults on the stripes, everything kept."""
    return lab.spec("mae", **{"task": "toy/stripes", "runtime": {"save": "all"}, **changes})
