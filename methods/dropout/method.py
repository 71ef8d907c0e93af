"""Dropout training: trains everything under dropout, which penalises rank, beside a linear probe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.api.dropout import set_dropout
from bench.api.method import Batch
from bench.core.errors import UsageError
from methods.dropout.config import DropoutConfig
from methods.full.method import Full


class Dropout(Full):
    """Trains everything with one dropout rate; see `DropoutConfig`."""

    saves_backbone = "always"
    Config = DropoutConfig
    config: DropoutConfig

    def adapt(self, batch: Batch) -> None:
        """Set every dropout. Features that leave the network through dropout get none before the head.

        Raises:
            UsageError: the network has none.
        """
        super().adapt(batch)
        rate, (rates_before, acts_last) = self.config.rate, self._find_dropout(batch)
        if not set_dropout(self.backbone, rate) and rate:
            raise UsageError(
                f"method.rate={rate:g} has no effect inside this backbone",
                f"no dropout was found in {type(self.backbone).__name__}: it would act before the head alone",
                "Use --method full with --set head.dropout=…, or another backbone.",
            )
        given = [("backbone.dropout", rates_before), ("head.dropout", {self.head_config.dropout})]
        self._replaced = [f"{name}={p:g}" for name, rates in given for p in sorted(rates - {0.0, rate})]
        self.head_config = replace(self.head_config, dropout=0.0 if acts_last else rate)
        self.evaluations = self.config.evaluations
        self.probe = copy.deepcopy(self.head).requires_grad_() if self.config.probe else None

    def expected_parameters(self) -> int | None:
        """Return the size of the network, and that of another head."""
        probe = 0 if self.probe is None else sum(p.numel() for p in self.head.parameters())
        return sum(p.numel() for p in self.backbone.parameters()) + probe

    def _find_dropout(self, batch: Batch) -> tuple[set[float], bool]:
        """Return the network's dropout rates, and whether dropout comes last.

        They are read from two examples in evaluation mode, where dropout changes nothing.
        """
        self.backbone.eval()
        with torch.no_grad(), _DropoutRecorder() as recorder:
            pooled = self.backbone(**{name: value[:2] for name, value in batch["inputs"].items()})
        rates, outputs = {rate for rate, _ in recorder.calls}, [output for _, output in recorder.calls]
        return rates, bool(outputs) and outputs[-1].data_ptr() == pooled.data_ptr()

    def loss(self, batch: Batch) -> Tensor:
        """Return the head's loss plus the gradient, but not the value, of the probe's: the curve shows the network."""
        loss = super().loss(batch)
        if self.probe is None:
            return loss
        probed = self.criterion(self.predict(self._probe_features(batch), self.probe), batch["labels"])
        return loss + (probed - probed.detach())

    @torch.no_grad()
    def _probe_features(self, batch: Batch) -> Tensor:
        """Return pooled features (B, D) without dropout; draws no random numbers."""
        was_training = self.backbone.training
        pooled = self.backbone.eval()(**batch["inputs"])
        self.backbone.train(was_training)
        return pooled

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Leave the probe out of the norm, since it would shorten the network's steps."""
        if gradient_clip_val:
            clipped = [p for name, p in self.named_parameters() if not name.startswith("probe.")]
            nn.utils.clip_grad_norm_(clipped, gradient_clip_val)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return outputs of the head, or with a probe of both, (B, 2, …)."""
        pooled = self.backbone(**batch["inputs"])
        outputs = self.predict(pooled)
        return outputs if self.probe is None else torch.stack([outputs, self.predict(pooled, self.probe)], 1)

    def evaluate(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the task's metrics of the head and, as `probe_…`, of the probe."""
        if self.probe is None:
            return super().evaluate(outputs, labels)
        head, probe = (super(Dropout, self).evaluate(outputs[:, i], labels) for i in range(2))
        return {**head, **{f"probe_{name}": value for name, value in probe.items()}}

    def warnings(self) -> list[str]:
        """Name given rates that did not act."""
        rate = self.config.rate
        return [f"{given} did not act: method.rate={rate:g} sets every dropout" for given in self._replaced]


class _DropoutRecorder(TorchFunctionMode):
    """Records rate and output of every dropout, by a module or as a function.

    Outputs are kept so that no other tensor gets their memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, Tensor]] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.dropout:
            rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            self.calls.append((cast(float, rate), cast(Tensor, result)))
        return result
