"""The base of every method: a LightningModule that adapts a backbone, puts a head on it and trains what it declares."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

from bench.api import metrics, optimizers
from bench.api.batching import Batch as Batch
from bench.api.peft import PeftFolder
from bench.api.running_statistics import freeze_statistics, moving_statistics
from bench.api.task import TaskSpec
from bench.config.sections import AllocationConfig, HeadConfig, MethodConfig, OptimConfig
from bench.core.errors import UsageError
from bench.spectra.delta import Delta

Peft = tuple[dict[str, Any], dict[str, Tensor]]
"""An adapter of `peft`: what its adapter_config.json and its adapter_model.safetensors hold."""


class Method(LightningModule):
    """Adapts `backbone`, trains on one task. A subclass implements `adapt` and, where it has them, the other hooks.

    Attributes:
        Config: its options, a `MethodConfig`, which also says what a plan must know: learning rates, modalities, ….
        primary: the metrics of `evaluate` whose mean is the primary one; empty: the task's.
        higher_is_better: direction of `primary`, where it is the method's own.
        saves_backbone: whether a run keeps its trained network, a backbone for others; `asked` with runtime.save=all.
        evaluations: how many times dev is evaluated on the way, evenly spaced; the score is always that of the end.
        penalties: what the run adds to the loss whatever the method, each once per global batch.
        saves_adapter: whether `export` is small beside the backbone, so that it is kept by default.
        cache_bytes: what it kept per device, while training, to compute it only once.
        skips_parameters: whether a step may leave trained parameters out of the loss; `adapt` may still decide it.
    """

    Config: ClassVar[type[MethodConfig]]
    primary: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[bool] = True
    saves_backbone: ClassVar[Literal["never", "asked", "always"]] = "never"
    saves_adapter: ClassVar[bool] = True
    skips_parameters: bool = False
    cache_bytes: int = 0
    evaluations: int = 0

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
            backbone: called with a batch's inputs it gives pooled features (B, D); `backbone.width` is D. One that has
                `make_head` brings the layer after it.
            task: decides the width of the head and the loss.
            config: the method's options.
            head: options of the head.
            optim: options of the optimiser and its schedule.
            lr: learning rate.
            seed: seeds the head, so that every method starts from the same one, and what the method adds.
            allocation: how rank is shared out, by a method that allocates; None: uniformly.
        """
        super().__init__()
        self.backbone, self.task, self.config = backbone, task, config
        self.seed, self.allocation = seed, allocation or AllocationConfig()
        self.head_config, self.optim, self.lr = head, optim, lr
        generator = torch.Generator().manual_seed(seed)
        make: Any = getattr(backbone, "make_head", None) or partial(_make_head, int(backbone.width))  # type: ignore[arg-type]
        self.head: nn.Linear = make(task.num_classes or task.targets, generator)
        self.head.requires_grad_(head.trainable and task.labelled)
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
        """What was trained, by name: the adapter and the head, without the frozen backbone, but with the running
        statistics that moved.
        """
        trained = {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}
        return {**trained, **{f"backbone.{name}": t for name, t in moving_statistics(self.backbone).items()}}

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Every metric of an evaluation split.

        Args:
            outputs: of `validation_step`, (N, …), all examples in order, on the CPU.
            labels: (N,) or (N, k).
        """
        return metrics.evaluate(self.task, outputs, labels)

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser that `optim.name` names, over groups that hold their learning rate."""
        optim = self.optim
        embeddings = [m.weight for m in self.modules() if isinstance(m, nn.Embedding)]
        return optimizers.make(
            optim.name,
            groups,
            lr=self.lr,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            momentum=optim.momentum,
            apart=[*embeddings, *self.head.parameters()],
        )

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
            "`bench export --peft` writes methods whose ΔW peft can compute, such as lora, adalora and deeplora",
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
        """Logits (B, classes), scores (B,) for regression, or (B, k) of k numbers each."""
        return self.predict(F.dropout(self.features(inputs), self.head_config.dropout, self.training))

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the head sees, before dropout: the backbone's pooled features (B, D)."""
        return self.backbone(**inputs)

    def predict(self, pooled: Tensor) -> Tensor:
        """What the head makes of pooled features (B, D)."""
        logits = self.head(pooled)
        return logits if self.task.num_classes or self.task.targets > 1 else logits.squeeze(-1)

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the batch of `criterion`."""
        return self.criterion(self(batch["inputs"]), batch["labels"])

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean over the batch: cross-entropy, or squared error for regression and where `head.loss` asks for it.

        Of several numbers per example the squared error is summed over those that were observed: an example weighs as
        much as it says, and the mean over examples is the same however the batch is cut.
        """
        if self.task.num_classes and self.head_config.loss == "auto":
            return F.cross_entropy(outputs, labels)
        if self.task.num_classes:
            return (outputs - F.one_hot(labels, self.task.num_classes)).square().sum(-1).mean()
        labels = labels.to(outputs.dtype)
        if self.task.targets == 1:
            return F.mse_loss(outputs, labels)
        return torch.where(labels.isnan(), 0, outputs - labels.nan_to_num()).square().sum(-1).mean()

    def train(self, mode: bool = True) -> Self:
        """As in torch, but frozen normalisations keep the statistics that they came with."""
        super().train(mode)
        freeze_statistics(self.backbone)
        return self

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
        """Outputs of an evaluation batch; `bench.training.callbacks.Predictions` gathers them."""
        return self(batch["inputs"])

    def configure_optimizers(self) -> Any:
        """`make_optimizer` over `param_groups`, with warm-up and decay per optimiser step."""
        groups = [
            {**{k: v for k, v in g.items() if k != "lr_scale"}, "lr": self.lr * g.get("lr_scale", 1.0)}
            for g in self.param_groups()
        ]
        optimizer = self.make_optimizer(groups)
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


def _make_head(width: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """N(0, .02²) weights as BERT's classifier, zero bias, from a generator of its own."""
    head = nn.Linear(width, outputs)
    with torch.no_grad():
        head.weight.copy_(torch.randn(outputs, width, generator=generator) * 0.02)
        head.bias.zero_()
    return head
