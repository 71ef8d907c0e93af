"""The base of every method: a LightningModule that adapts a backbone, puts a head on it and trains what it declares."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

from bench.config import AllocationConfig, HeadConfig, OptimConfig
from bench.errors import UsageError
from bench.exchange import PeftFolder
from bench.spectra.delta import Delta
from bench.task import TaskSpec

Batch = dict[str, Any]
"""`inputs` (tensors of the backbone's forward), `labels` (B,), `index` (B,), and in training `weight`: what the batch's
mean loss is multiplied with, so that micro batches and devices add up to the mean over the global batch."""
Peft = tuple[dict[str, Any], dict[str, Tensor]]
"""An adapter of `peft`: what its adapter_config.json and its adapter_model.safetensors hold."""


class Method(LightningModule):
    """Adapts `backbone`, trains on one task. A subclass implements `adapt` and, where it has them, the other hooks.

    Attributes:
        Config: frozen, keyword-only dataclass of the method's options; attribute docs are their help.
        learning_rate: default of `--lr`.
        learning_rates: three candidates of `--select lr` where `--lr` names none.
        needs: modalities it works on.
        allocates: whether it has a rank per layer that `allocation` can share out.
        penalties: what the run adds to the loss whatever the method, each once per global batch.
        saves_adapter: whether `export` is small beside the backbone, so that it is kept by default.
        cache_bytes: what it kept per device, while training, to compute it only once.
        skips_parameters: whether a step may leave trained parameters out of the loss; `adapt` may still decide it.
    """

    Config: ClassVar[type]
    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)
    needs: ClassVar[frozenset[str]] = frozenset({"text", "image"})
    allocates: ClassVar[bool] = False
    saves_adapter: ClassVar[bool] = True
    skips_parameters: bool = False
    cache_bytes: int = 0

    def __init__(
        self,
        backbone: nn.Module,
        task: TaskSpec,
        config: Any,
        *,
        head: HeadConfig,
        optim: OptimConfig,
        lr: float,
        seed: int,
        allocation: AllocationConfig | None = None,
    ) -> None:
        """Build the head.

        Args:
            backbone: called with a batch's inputs it gives pooled features (B, D); `backbone.width` is D.
            task: decides the width of the head and the loss.
            config: the method's options.
            head: options of the head.
            optim: options of AdamW and its schedule.
            lr: learning rate.
            seed: seeds the head, so that every method starts from the same one, and what the method adds.
            allocation: how rank is shared out, by a method that allocates; None: uniformly.
        """
        super().__init__()
        self.backbone, self.task, self.config = backbone, task, config
        self.seed, self.allocation = seed, allocation or AllocationConfig()
        self.head_config, self.optim, self.lr = head, optim, lr
        self.head = _make_head(int(backbone.width), max(1, task.num_classes), seed)  # type: ignore[arg-type]
        self.head.requires_grad_(head.trainable)
        self.penalties: list[Callable[[], Tensor]] = []
        self.strict_loading = False  # checkpoints hold what trains; the rest is built again

    # what a method implements

    @abstractmethod
    def adapt(self, batch: Batch) -> None:
        """Insert what trains and freeze the rest; called once, before the optimiser exists.

        Args:
            batch: the first global batch of training, for methods that start from a gradient.
        """

    def penalty(self) -> Tensor | None:
        """A scalar added to the loss of every global batch."""
        return None

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of the trained parameters; a group's `lr_scale` multiplies the learning rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """ΔW of every adapted layer, by name; none for a method without one."""
        return iter(())

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        """W(0) and ΔW of every layer of `deltas`, ΔW with its history, for penalties."""
        return iter(())

    def report(self) -> dict[str, Any]:
        """What else the record should tell of this run, as JSON values by name; lists of like objects are tables."""
        return {}

    def export(self) -> dict[str, Tensor]:
        """What was trained, by name: the adapter and the head, without the frozen backbone."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def sweep(self) -> Iterator[dict[str, Any]]:
        """Settings to evaluate the trained network under besides, such as `{"n": 2}`; each holds until the next."""
        return iter(())

    def warnings(self) -> list[str]:
        """Lines that the reader of a score must see."""
        return []

    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Peft:
        """The adapter of `peft` that computes the same, from a run's options and what it exported.

        Raises:
            UsageError: peft has none.
        """
        raise UsageError(
            f"{cls.__name__} has no equivalent in peft",
            "`bench export --peft` writes runs of methods whose ΔW peft can compute, such as lora and adalora",
            "Use the run's own adapter.safetensors.",
        )

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Any]:
        """Options that an adapter of `peft`, which the option `start` names, stands for; the plan asks for them.

        Raises:
            UsageError: the method cannot start from it.
        """
        raise UsageError(
            f"{cls.__name__} starts from no adapter of peft", f"method.start={folder.path}", "Leave method.start out."
        )

    # what all methods share

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits (B, classes), or scores (B,) for regression."""
        pooled = F.dropout(self.backbone(**inputs), self.head_config.dropout, self.training)
        logits = self.head(pooled)
        return logits if self.task.num_classes else logits.squeeze(-1)

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the batch: cross-entropy, or squared error for regression."""
        logits = self(batch["inputs"])
        if self.task.num_classes:
            return F.cross_entropy(logits, batch["labels"])
        return F.mse_loss(logits, batch["labels"].to(logits.dtype))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a micro batch, weighted so that the global batch's gradient is that of its mean."""
        loss = self.loss(batch) * batch["weight"]
        self.step_loss = loss.detach()
        parts = self.trainer.accumulate_grad_batches
        if batch_idx % parts:
            return loss
        with torch.autocast(self.device.type, enabled=False):  # decompositions have no 16-bit form
            found = [self.penalty(), *(penalty() for penalty in self.penalties)]
        # with the first part of a global batch and for all of them, whose mean is taken, as that over devices is
        return sum((parts * penalty for penalty in found if penalty is not None), loss)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Outputs of an evaluation batch; `bench.callbacks.Predictions` gathers them."""
        return self(batch["inputs"])

    def configure_optimizers(self) -> Any:
        """AdamW over `param_groups`, with warm-up and decay per optimiser step."""
        groups = [
            {**{k: v for k, v in g.items() if k != "lr_scale"}, "lr": self.lr * g.get("lr_scale", 1.0)}
            for g in self.param_groups()
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, eps=self.optim.eps, weight_decay=self.optim.weight_decay)
        # not `estimated_stepping_batches`: it opens the loader before a checkpoint can say where to begin
        factor = schedule(self.optim, self.trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen: an interrupted run builds it again from backbone and seed."""
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        checkpoint["state_dict"] = {n: t for n, t in checkpoint["state_dict"].items() if n not in frozen}

    def parameter_counts(self) -> dict[str, int]:
        """`total` (backbone, adapter, head), `trainable` (head included), `head` (trained parameters of the head)."""
        return {
            "total": sum(p.numel() for p in self.parameters()),
            "trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
            "head": sum(p.numel() for p in self.head.parameters() if p.requires_grad),
        }


def schedule(optim: OptimConfig, total: int) -> Callable[[int], float]:
    """Factor on the learning rate at step 0, 1, …, total − 1: linear warm-up, then linear, cosine or no decay to zero.

    A plain function: of any other callable LambdaLR would put the attributes into a checkpoint.
    """
    warmup = max(1, round(optim.warmup * total)) if optim.warmup > 0 else 0

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = (total - step) / max(1, total - warmup)
        if optim.schedule == "linear":
            return max(0.0, left)
        return 0.5 * (1 - math.cos(math.pi * max(0.0, left))) if optim.schedule == "cosine" else 1.0

    return factor


def _make_head(width: int, outputs: int, seed: int) -> nn.Linear:
    """N(0, .02²) weights as BERT's classifier, zero bias, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, outputs)
    with torch.no_grad():
        head.weight.copy_(torch.randn(outputs, width, generator=generator) * 0.02)
        head.bias.zero_()
    return head
