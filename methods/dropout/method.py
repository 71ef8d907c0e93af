"""Dropout training: everything trains under dropout, which penalises rank, with a linear probe that watches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.api.dropout import set_dropout
from bench.api.method import Batch
from bench.config.sections import MethodConfig
from methods.dropout.config import DropoutConfig
from methods.full.method import Full


class Dropout(Full):
    """Trains everything with one dropout rate; equations are in `DropoutConfig`."""

    saves_backbone: ClassVar[Literal["never", "asked", "always"]] = "always"

    Config: ClassVar[type[MethodConfig]] = DropoutConfig

    config: DropoutConfig

    def adapt(self, batch: Batch) -> None:
        """Set every dropout, once on every number: features that leave the network through one need none behind it."""
        super().adapt(batch)
        rate, before = self.config.rate, self._watched(batch)
        set_dropout(self.backbone, rate)
        given = [("backbone.dropout", before.rates), ("head.dropout", {self.head_config.dropout})]
        self._replaced = [f"{name}={p:g}" for name, rates in given for p in sorted(rates - {0.0, rate})]
        self.head_config = replace(self.head_config, dropout=0.0 if before.last else rate)
        self.evaluations = self.config.evaluations
        self.probe = copy.deepcopy(self.head).requires_grad_() if self.config.probe else None

    def _watched(self, batch: Batch) -> _Watch:
        """What dropout the network has, by two examples; in evaluation mode, where it changes nothing."""
        self.backbone.eval()
        with torch.no_grad(), _Watch() as watch:
            pooled = self.backbone(**{name: value[:2] for name, value in batch["inputs"].items()})
        watch.last = watch.output is not None and watch.output.data_ptr() == pooled.data_ptr()
        return watch

    def loss(self, batch: Batch) -> Tensor:
        """The head's loss; the probe's adds its gradient but not its value: the curve is that of the network."""
        loss = super().loss(batch)
        if self.probe is None:
            return loss
        probed = self.criterion(self._probed(self.probe, self._features(batch)), batch["labels"])
        return loss + (probed - probed.detach())

    @torch.no_grad()
    def _features(self, batch: Batch) -> Tensor:
        """Pooled features (B, D) as evaluation sees them; this draws no random numbers."""
        was = self.backbone.training
        pooled = self.backbone.eval()(**batch["inputs"])
        self.backbone.train(was)
        return pooled

    def _probed(self, probe: nn.Linear, pooled: Tensor) -> Tensor:
        outputs = probe(pooled)
        return outputs if self.task.num_classes or self.task.targets > 1 else outputs.squeeze(-1)

    def configure_gradient_clipping(self, *args: Any, gradient_clip_val: float | None = None, **more: Any) -> None:
        """Leave the probe out of the norm: it would shorten the network's steps."""
        if gradient_clip_val:
            mine = [p for name, p in self.named_parameters() if not name.startswith("probe.")]
            nn.utils.clip_grad_norm_(mine, gradient_clip_val)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Outputs of the head and, with a probe, of the probe: (B, 2, …)."""
        pooled = self.backbone(**batch["inputs"])
        outputs = self.predict(pooled)
        return outputs if self.probe is None else torch.stack([outputs, self._probed(self.probe, pooled)], 1)

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """The task's metrics of the head and, as `probe_…`, of the probe."""
        if self.probe is None:
            return super().evaluate(outputs, labels)
        head, probe = (super(Dropout, self).evaluate(outputs[:, i], labels) for i in range(2))
        return {**head, **{f"probe_{name}": value for name, value in probe.items()}}

    def warnings(self) -> list[str]:
        """Rates that were asked for and did not act."""
        rate = self.config.rate
        return [f"{given} did not act: method.rate={rate:g} sets every dropout" for given in self._replaced]


class _Watch(TorchFunctionMode):
    """Sees every call of dropout, by a module or as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: set[float] = set()
        self.output: Tensor | None = None
        self.last = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Keep rate and output; kept, its memory is not given to another tensor."""
        found = func(*args, **(kwargs or {}))
        if func is F.dropout:
            self.rates.add(float((kwargs or {}).get("p", args[1] if len(args) > 1 else 0.5)))
            self.output = found
        return found
