"""The base of every method: a LightningModule that adapts a network, adds a head, and trains what it declares."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from bench.api import metrics
from bench.api.batching import Batch
from bench.api.network import MakesHead, Network, find_stacks
from bench.api.optimizers import ParamGroup, build_optimizer
from bench.api.peft import PeftAdapter, PeftFolder
from bench.api.running_statistics import freeze_statistics, moving_statistics
from bench.api.task import TaskSpec
from bench.config.options import Value
from bench.config.sections import AllocationConfig, HeadConfig, MethodConfig, OptimConfig
from bench.core.errors import UsageError
from bench.spectra.delta import Delta


class Method(LightningModule):
    """Adapts a backbone's network and trains it on one task.

    A subclass implements `adapt` and, where it has them, the other hooks.

    Attributes:
        Config: class of its options, which also states what a plan must know: learning rates, modalities, …
        config: its options; a subclass annotates it with its own Config.
        primary: metrics of `evaluate` whose mean is the primary score; empty: those of the task.
        higher_is_better: direction of `primary`, where the method names its own.
        saves_backbone: whether a run keeps its trained network as a backbone; "asked": only with runtime.save=all.
        saves_adapter: whether `export` is small beside the backbone, so that it is kept by default.
        evaluations: evaluations on dev during training, evenly spaced; those of `--evaluate` take their place. The
            score is always that of the last step.
        stacks: the backbone's blocks, by name of their stack (`find_stacks`).
        penalties: what the run adds to the loss of every method, once per global batch.
        cache_bytes: memory per device of what was computed only once.
        class_weights: (classes,) of the cross-entropy; None: all 1.
        bottlenecks: whether it adds nonlinear layers behind the blocks, `adapter.down` and `adapter.up`.
        skips_parameters: whether a step may leave trained parameters out of the loss; `adapt` may still set it.
        exported: what a finished run exported, while `adapt` builds its method again; else empty.
        starts_at_backbone: whether it computes the backbone's function before it trains; `adapt` may still set it.
        frozen_exports: expressions that find the names of tensors which `export` returns though they do not train.
    """

    Config: ClassVar[type[MethodConfig]]
    config: Any
    primary: tuple[str, ...] = ()
    higher_is_better: bool = True
    saves_backbone: ClassVar[Literal["never", "asked", "always"]] = "never"
    saves_adapter: ClassVar[bool] = True
    bottlenecks: ClassVar[bool] = False
    skips_parameters: bool = False
    starts_at_backbone: bool = True
    frozen_exports: ClassVar[tuple[str, ...]] = ()
    cache_bytes: int = 0
    evaluations: int = 0
    class_weights: Tensor | None
    exported: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(
        self,
        backbone: Network,
        task: TaskSpec,
        config: MethodConfig,
        *,
        head: HeadConfig,
        optim: OptimConfig,
        lr: float,
        seed: int,
        allocation: AllocationConfig | None = None,
    ) -> None:
        """Build the head. It follows from `seed`, so it is the same for every method.

        Args:
            backbone: inputs → pooled features (B, D). One that `MakesHead` builds the head itself.
            task: decides the width of the head and the loss.
            seed: of the head and of what the method adds.
            allocation: how a method that allocates shares rank between layers; None: uniformly.
        """
        super().__init__()
        self.backbone, self.task, self.config = backbone, task, config
        self.stacks = find_stacks(backbone)
        self._given = {id(parameter) for parameter in backbone.parameters()}
        self.seed, self.allocation = seed, allocation or AllocationConfig()
        self.head_config, self.optim, self.lr = head, optim, lr
        generator, outputs = torch.Generator().manual_seed(seed), task.num_classes or task.targets
        if isinstance(backbone, MakesHead):
            self.head = backbone.make_head(outputs, generator)
        else:
            self.head = nn.Linear(backbone.width, outputs)
            with torch.no_grad():  # N(0, .02²) and no bias, as BERT's classifier starts
                self.head.weight.copy_(torch.randn(outputs, backbone.width, generator=generator) * 0.02)
                self.head.bias.zero_()
        self.head.requires_grad_(head.trainable and task.labelled)
        self.penalties: list[Callable[[], Tensor]] = []
        self.register_buffer("class_weights", None, persistent=False)
        self.strict_loading = False  # a checkpoint holds what trains; the rest is built again

    # what a method implements

    @abstractmethod
    def adapt(self, batch: Batch) -> None:
        """Insert what trains and freeze the rest, before the optimiser exists; `batch` is the first of training."""

    def penalty(self) -> Tensor | None:
        """Return a scalar to add to the loss of every global batch."""
        return None

    def param_groups(self) -> list[ParamGroup]:
        """Return the trained parameters as optimiser groups; `lr_scale` of a group multiplies the learning rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """Yield name and ΔW of every adapted layer; nothing for a method without ΔW."""
        return iter(())

    def layer_of(self, name: str) -> tuple[nn.Module, nn.Module]:
        """Return, for a name of `deltas`, the module that applies W + ΔW to its input, and the layer that holds W.

        The second says how a weight meets the input: stride, padding. By default it is `base` of the module, or itself.
        """
        module = self.backbone.get_submodule(name)
        return module, cast(nn.Module, getattr(module, "base", module))

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        """Yield name, W(0) and ΔW of every layer of `deltas`, with gradients of ΔW for penalties."""
        return iter(())

    def expected_parameters(self) -> int | None:
        """Return how many parameters train beside the head, by the docstring's formula; None where it gives none.

        Called after `adapt`. Compute it from options and shapes: `bench check` compares it with what is counted.
        """
        return None

    def report(self) -> dict[str, object]:
        """Return JSON values by name for the record; a list of like objects is a table."""
        return {}

    def export(self) -> dict[str, Tensor]:
        """Return by name what was trained, adapter and head, and the running statistics that moved."""
        trained = {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}
        return {**trained, **{f"backbone.{name}": t for name, t in moving_statistics(self.backbone).items()}}

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Return every metric of the outputs (N, …) of `validation_step`, in order, and labels (N,) or (N, k)."""
        return metrics.evaluate(self.task, outputs, labels)

    def make_optimizer(self, groups: list[ParamGroup]) -> torch.optim.Optimizer:
        """Build the optimiser that `optim.name` names, over groups with their learning rates."""
        embeddings = [m.weight for m in self.modules() if isinstance(m, nn.Embedding)]
        return build_optimizer(self.optim, groups, lr=self.lr, not_muon=[*embeddings, *self.head.parameters()])

    def sweep(self) -> Iterator[dict[str, int]]:
        """Yield settings, such as `{"n": 2}`, to evaluate the trained network under; each holds until the next."""
        return iter(())

    def warnings(self) -> list[str]:
        """Return lines that the reader of a score must see."""
        return []

    @classmethod
    def peft(cls, config: MethodConfig, tensors: dict[str, Tensor]) -> PeftAdapter:
        """Return the adapter of `peft` that computes the same as what a run with these options exported.

        Raises:
            UsageError: peft has no equivalent.
        """
        raise UsageError(
            f"{cls.__name__} has no equivalent in peft",
            "`bench export --peft` writes methods whose ΔW peft can compute, such as lora, adalora and deeplora",
            "Use --adapter DIR." if cls.bottlenecks else "Use --merged DIR, which writes the whole network.",
        )

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Value]:
        """Return the options that an adapter of `peft`, named by the option `start`, stands for. Planning calls it.

        Raises:
            UsageError: the method cannot start from it.
        """
        raise UsageError(
            f"{cls.__name__} cannot start from an adapter of peft",
            f"method.start={folder.path}",
            "Leave method.start out.",
        )

    def merged(self) -> Network:
        """Return the trained network with every layer as the backbone had it: its weight is W + ΔW.

        The method cannot be used any more. One that adds other modules than ΔW to the network raises.

        Raises:
            UsageError: no weight of the backbone computes what the method added.
        """
        return self.backbone

    def linear_head(self) -> tuple[Tensor, Tensor]:
        """Return weight (outputs, D) and bias (outputs,) that turn the backbone's pooled features into outputs."""
        weight, bias = self.head.weight.detach(), cast("Tensor | None", self.head.bias)
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()

    # what all methods share

    def restore(self, tensors: Mapping[str, Tensor], batch: Batch) -> Self:
        """Adapt the backbone as a finished run did, and load what it exported; return self, in evaluation mode.

        Args:
            tensors: those of `export` and of the head.
            batch: any examples of the run's task. What `adapt` measures on the first batch of training is exported.

        Raises:
            ValueError: the tensors are not those of this method on this backbone.
        """
        self.exported = tensors
        self.adapt(batch)
        own = self.state_dict()
        needed = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        if wrong := sorted((tensors.keys() - own.keys()) | (needed - tensors.keys())):
            raise ValueError(f"{len(wrong)} tensors are missing or of no use, such as {wrong[0]}")
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise ValueError(f"{name} is {(*tensor.shape,)}, and {(*own[name].shape,)} is needed")
            own[name].copy_(tensor)
        return self.eval()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return logits (B, classes), scores (B,) for regression, or (B, k) for k numbers per example."""
        return self.predict(F.dropout(self.features(inputs), self.head_config.dropout, self.training))

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the head's input before dropout: the backbone's pooled features (B, D)."""
        return self.backbone(**inputs)

    def predict(self, pooled: Tensor, head: nn.Module | None = None) -> Tensor:
        """Return the outputs of the head, or of another one, for pooled features (B, D), in the labels' shape."""
        outputs: Tensor = (self.head if head is None else head)(pooled)
        return outputs if self.task.num_classes or self.task.targets > 1 else outputs.squeeze(-1)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean over the batch of `criterion`, with which a loss of a method's own compares labels too."""
        return self.criterion(self(batch["inputs"]), batch["labels"])

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, or the squared error for regression and with head.loss=squared.

        With several classes per example it is the binary cross-entropy of each class's sigmoid, with `class_weights`
        the mean that they weight, Σ w·loss / Σ w; `Batch.weight` then is the batch's share of the weights.

        With several numbers per example the squared error is summed over the observed ones, so an example's weight
        grows with them, and the mean over examples is the same however the batch is split.
        """
        if self.task.multilabel:
            return F.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype))
        if self.task.num_classes and self.head_config.loss == "auto":
            return F.cross_entropy(outputs, labels, weight=self.class_weights)
        if self.task.num_classes:
            return (outputs - F.one_hot(labels, self.task.num_classes)).square().sum(-1).mean()
        labels = labels.to(outputs.dtype)
        if self.task.targets == 1:
            return F.mse_loss(outputs, labels)
        return torch.where(labels.isnan(), 0, outputs - labels.nan_to_num()).square().sum(-1).mean()

    def train(self, mode: bool = True) -> Self:
        """Set the mode as torch does; frozen normalisations keep the statistics that they came with."""
        super().train(mode)
        freeze_statistics(self.backbone)
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a micro batch, weighted so that gradients add up to that of the global batch's mean."""
        loss = self.loss(batch) * batch["weight"]
        self.step_loss = loss.detach()
        parts = self.trainer.accumulate_grad_batches
        if batch_idx % parts:
            return loss
        with torch.autocast(self.device.type, enabled=False):  # decompositions have no 16-bit form
            penalties = [self.penalty(), *(penalty() for penalty in self.penalties)]
        # once per global batch, with its first part: times the parts, over which Lightning takes the mean
        return sum((parts * penalty for penalty in penalties if penalty is not None), loss)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return outputs of an evaluation batch; `bench.training.callbacks.Evaluations` gathers them."""
        return self(batch["inputs"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return `make_optimizer` over `param_groups`, with warm-up and decay per optimiser step."""
        groups = [dict(group) for group in self.param_groups()]
        for group in groups:
            group["lr"] = self.lr * group.pop("lr_scale", 1.0)
        optimizer = self.make_optimizer(groups)
        # not `estimated_stepping_batches`: it opens the loader before a checkpoint can say where to begin
        factor = schedule(self.optim, self.trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Leave out what is frozen: a resumed run builds it again from backbone and seed."""
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        state = cast("dict[str, Tensor]", checkpoint["state_dict"])
        checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if name not in frozen}

    def frozen(self) -> list[nn.Parameter]:
        """Return the backbone's own parameters that do not train; those that the method added are not among them."""
        return [p for p in self.backbone.parameters() if not p.requires_grad and id(p) in self._given]

    def parameter_counts(self) -> dict[str, int]:
        """Return `total` (backbone, adapter, head), `trainable` (with the head) and `head` (trained ones of it)."""
        return {
            "total": sum(p.numel() for p in self.parameters()),
            "trainable": sum(p.numel() for p in self.parameters() if p.requires_grad),
            "head": sum(p.numel() for p in self.head.parameters() if p.requires_grad),
        }


def schedule(optim: OptimConfig, total: int) -> Callable[[int], float]:
    """Return the factor on the learning rate by step: linear warm-up, then linear, cosine or no decay to zero.

    A plain function, because LambdaLR puts the attributes of any other callable into a checkpoint.
    """
    warmup = max(1, round(optim.warmup * total)) if optim.warmup > 0 else 0

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, (total - step) / max(1, total - warmup))
        return {"linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left)), "constant": 1.0}[optim.schedule]

    return factor
