"""Options outside the method's own: head, optimiser, task, backbone, runtime, as `--set namespace.key=value`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """The linear layer between pooled features and labels."""

    trainable: bool = True
    """False freezes the head at its random start, as the Deep LoRA paper does."""
    pooling: Literal["auto", "mean", "cls", "pooler"] = "auto"
    """How token features become one vector; auto is what the backbone was trained with."""
    dropout: float = 0.0
    """Dropout rate on the pooled features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule."""

    weight_decay: float = 0.0
    """Decoupled weight decay of every trained matrix."""
    eps: float = 1e-8
    """Adam's epsilon."""
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    """How the learning rate goes to zero after the warm-up (constant: it does not)."""
    warmup: float = 0.06
    """Share of all steps over which the learning rate rises linearly from zero."""
    clip: float = 1.0
    """Norm at which gradients are clipped; 0 does not clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """How examples become batches."""

    max_length: int = 128
    """Tokens per example, special ones included; longer texts are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """The pretrained network."""

    dropout: float = 0.0
    """Dropout rate inside the backbone. 0 by default: dropout masks depend on how a batch is split over devices, and
    the number of devices must not change the experiment."""
    revision: str = "main"
    """Branch, tag or commit on the hub; ignored for a local directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """How a run is executed; nothing here changes its result or its identity."""

    micro_batch: int = 0
    """Examples per forward pass and device; 0 is the whole share of the device. Must divide it."""
    eval_batch: int = 64
    """Examples per forward pass in evaluation."""
    save: Literal["adapter", "all", "none"] = "adapter"
    """Which weights a run keeps: what a parameter-efficient method trained, also a full fine-tune's, or nothing."""
    workers: int = 0
    """Loader processes; the data is in memory, so 0 is nearly always fastest."""


NAMESPACES: dict[str, type] = {
    "head": HeadConfig,
    "optim": OptimConfig,
    "task": TaskConfig,
    "backbone": BackboneConfig,
    "runtime": RuntimeConfig,
}
"""Namespaces of `--set` besides `method`, whose options are the method's own `Config`."""
