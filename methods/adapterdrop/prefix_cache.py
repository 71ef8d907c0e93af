"""A frozen, deterministic prefix of a network: computed once per training example, kept in host memory, replayed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bench.api.method import Batch, Method
from bench.api.running_statistics import freeze_statistics

MIB = 2**20
ASKED = 64
"""Examples that are compared: with chance 2^-64 a mirroring leaves all of them as they are."""


class Prefix:
    """What the first n ≥ 1 blocks give for every training example.

    Each example is computed in a batch that depends on the data alone, so that devices, micro batches and resumed runs
    replay the same bits, and is kept without its padding.

    Attributes:
        rows: by index of the example, (its length, D), or an image's (C, H, W); empty before `fill` and where replaying
            would not be right.
        bytes: memory that the rows take.
    """

    def __init__(self, backbone: nn.Module, blocks: Sequence[nn.Module], n: int) -> None:
        self.backbone, self.blocks = backbone, blocks[:n]
        self.rows: dict[int, Tensor] = {}
        self.bytes = 0
        self._others: list[int] = []
        self._shapes: list[torch.Size] = []

    @torch.no_grad()
    def fill(self, method: Method, limit: int) -> str:
        """Compute the rows, if the run sees its examples more than once; return what stands against it.

        Args:
            method: in training, its `trainer.datamodule` offers `train.lengths`, `samples`, `one_pass()` and
                `collate()`.
            limit: bytes that the rows may take.
        """
        data: Any = method.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "one_pass"):
            return "this task's data module has no `one_pass`"
        if data.samples <= len(data.train.lengths):
            return ""
        if _changes(data):
            return "training examples are changed anew at every step (augmentation)"
        was_training = self.backbone.training
        try:
            for batch in data.one_pass():
                inputs = method.transfer_batch_to_device(batch, method.device, 0)["inputs"]
                inputs = method.trainer.precision_plugin.convert_input(inputs)
                lengths = data.train.lengths if "attention_mask" in inputs else None  # nothing else is padded
                with method.trainer.precision_plugin.forward_context():
                    hidden = self._run(inputs, training=False)
                    if not self.rows and (needed := _bytes(hidden, lengths, len(data.train.lengths))) > limit:
                        return f"that takes {needed / MIB:,.1f} MiB, more than method.cache_mib={limit / MIB:g}"
                    if not self.rows and self._moves(hidden, inputs):
                        return "they differ between training and evaluation mode (backbone.dropout?)"
                hidden = hidden.cpu()
                for index, row in zip(batch["index"].tolist(), hidden, strict=True):
                    self.rows[index] = row[: None if lengths is None else int(lengths[index])].clone()
        finally:
            self._mode(was_training)
        self.bytes = sum(row.numel() * row.element_size() for row in self.rows.values())
        return ""

    def _moves(self, hidden: Tensor, inputs: dict[str, Tensor]) -> bool:
        """Whether training mode gives something else than `hidden`; no generator of the run is touched."""
        with torch.random.fork_rng([hidden.device] if hidden.is_cuda else []):
            return not torch.allclose(self._run(inputs, training=True), hidden, rtol=1e-4, atol=1e-4)

    def _mode(self, training: bool) -> None:
        self.backbone.train(training)
        freeze_statistics(self.backbone)

    def _run(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """Output of block n (B, T, D) or (B, C, H, W); what comes after is not computed."""
        outs: list[Any] = []

        def keep(block: nn.Module, args: Any, out: Any) -> None:
            outs.append(out)
            if len(outs) == len(self.blocks):
                raise _Enough

        self._mode(training)
        with ExitStack() as stack:
            for block in self.blocks:
                stack.callback(block.register_forward_hook(keep).remove)
            with suppress(_Enough):
                self.backbone(**inputs)
        self._others = [len(out) - 1 if isinstance(out, tuple) else -1 for out in outs]
        hidden = [out[0] if isinstance(out, tuple) else out for out in outs]
        self._shapes = [one.shape[1:] for one in hidden]
        return hidden[-1]

    @contextmanager
    def replaying(self, batch: Batch) -> Generator[None]:
        """Meanwhile the first n blocks give, without computing, what they gave for this training batch.

        All but the last may give anything of the right shape: zeros where it is not that of the last.
        """
        if not self.rows:
            yield
            return
        rows = [self.rows[index] for index in batch["index"].tolist()]
        last = pad_sequence(rows, batch_first=True).to(batch["index"].device)  # a batch is as long as its longest
        with ExitStack() as stack:
            for block, shape, others in zip(self.blocks, self._shapes, self._others, strict=True):
                alike = shape[-1:] == last.shape[-1:] if last.ndim == 3 else shape == last.shape[1:]
                hidden = last if alike else last.new_zeros(()).expand(len(rows), *shape)
                out = hidden if others < 0 else (hidden, *(None for _ in range(others)))
                block.forward = lambda *args, out=out, **kwargs: out  # hides the class's own until it is deleted
                stack.callback(delattr, block, "forward")
            yield

    def clear(self) -> None:
        """Give the memory back."""
        self.rows = {}


class _Enough(Exception):
    """Block n has given what was wanted."""


def _changes(data: Any) -> bool:
    """Whether augmentation changes examples of the first step; many are asked, as chance spares some."""
    index = np.arange(min(len(data.train.lengths), ASKED))
    plain, first = (data.collate(data.train, index, step=step)["inputs"] for step in (-1, 0))
    return any(not torch.equal(tensor, plain[name]) for name, tensor in first.items())


def _bytes(hidden: Tensor, lengths: Any, examples: int) -> int:
    """Memory of the rows of all examples, from the output (B, …) for some."""
    numbers = examples * hidden[0].numel() if lengths is None else int(lengths.sum()) * hidden.shape[-1]
    return numbers * hidden.element_size()
